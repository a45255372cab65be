"""Certificates for tests, made by the openssl program: authorities, nodes, peers."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from node.tls import Credentials

OPENSSL = shutil.which("openssl")


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate authority with its folder."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    def issue(self, name: str, *, days: int = 30, host: str = "localhost") -> Credentials:
        """Return credentials signed by this authority, which they also believe."""
        key, request, certificate = (self.folder / f"{name}.{end}" for end in ("key", "csr", "crt"))
        names = self.folder / f"{name}.ext"
        names.write_text(f"subjectAltName=DNS:{host},IP:127.0.0.1\n")
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key, "-out", request, "-subj", f"/CN={name}")  # fmt: skip
        if days > 0:
            span = ["-days", days]
            run("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey",
                self.folder / "ca.key", "-CAcreateserial", "-out", certificate,
                "-extfile", names, *span)  # fmt: skip
        else:
            self._issue_expired(request, certificate, names)
        key.chmod(0o600)
        return Credentials(certificate=certificate, key=key, authorities=self.certificate)

    def _issue_expired(self, request: Path, certificate: Path, names: Path) -> None:
        """Only `openssl ca` of OpenSSL 3.0 takes dates in the past."""
        (self.folder / "index.txt").touch()
        settings = self.folder / "ca.cnf"
        settings.write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index.txt\n"
            f"new_certs_dir={self.folder}\nrand_serial=yes\ndefault_md=sha256\n"
            "policy=p\n[p]\ncommonName=supplied\n"
        )
        run("ca", "-batch", "-config", settings, "-in", request, "-out", certificate,
            "-notext", "-cert", self.certificate, "-keyfile", self.folder / "ca.key",
            "-startdate", "20200101000000Z", "-enddate", "20200201000000Z",
            "-extfile", names)  # fmt: skip


def authority(folder: Path) -> Authority:
    """Make a certificate authority in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-days", 30,
        "-subj", "/CN=Test CA")  # fmt: skip
    return Authority(folder=folder)


def run(*arguments: object) -> None:
    subprocess.run(
        [str(OPENSSL), *map(str, arguments)], check=True, capture_output=True, timeout=60
    )
