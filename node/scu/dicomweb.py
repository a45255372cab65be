"""A DICOMweb server as peer: who it is, how we show who we are, one request at a time (PS3.18 8).

STOW-RS (`node.scu.stow`) and QIDO-RS with WADO-RS (`node.scu.wado`) speak through it. Nothing is
followed: a redirect is an answer like any other, and credentials go to the configured host alone.
"""

import base64
import http.client
import ssl
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from typing_extensions import override

from node.config.model import DicomWeb
from node.errors import AssociationRejected, ConfigError, DeliveryError, PeerBusy, PeerUnreachable
from node.secret import read_secret

JSON: Final = "application/dicom+json"
LARGEST_ANSWER: Final = 4 * 1024 * 1024
"""Bytes of an answer that is held in memory."""

_NOT_ALLOWED: Final = frozenset({401, 403, 407})
_BUSY: Final = frozenset({408, 429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A DICOMweb server and how we show who we are."""

    url: str
    """Without a slash at the end; ``/studies`` follows."""
    timeout_s: float
    authorization: str = ""
    """Value of the header; empty for none."""
    tls: ssl.SSLContext | None = None

    @override
    def __str__(self) -> str:
        return self.url

    @property
    def host(self) -> str:
        """Return its host name or address."""
        return urlsplit(self.url).hostname or ""

    @classmethod
    def of(cls, name: str, section: DicomWeb) -> "Server":
        """Return the server that the configuration describes.

        Raises
        ------
        ConfigError
            A file of a secret or of authorities cannot be used.
        """
        secure = urlsplit(section.url).scheme == "https"
        try:
            tls = ssl.create_default_context(cafile=section.authorities) if secure else None
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"dicomweb.{name}.authorities: cannot be used: {error}"]) from error
        return cls(
            url=section.url.rstrip("/"),
            timeout_s=section.response_timeout_s,
            authorization=_authorization(name, section),
            tls=tls,
        )


class WebClient:
    """One connection to a server, opened when it is needed; used by one thread."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Iterator[bytes] | None = None,
    ) -> tuple[int, bytes]:
        """Return status and content of an answer that fits in memory.

        Raises
        ------
        PeerUnreachable
            There is no connection, it broke, or the answer has no end.
        """
        with self.answer(method, path, headers, body) as answer:
            content = answer.read(LARGEST_ANSWER)
            if not answer.isclosed():
                raise PeerUnreachable(f"{self.server} answered without an end")
        return answer.status, content

    @contextmanager
    def answer(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Iterator[bytes] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Lend an answer to be read; what goes wrong with the connection meanwhile closes it.

        Raises
        ------
        PeerUnreachable
            There is no connection, or it broke.
        """
        base = urlsplit(self.server.url)
        everything = {"Accept": JSON, "User-Agent": "rtnode", **(headers or {})}
        if self.server.authorization:
            everything["Authorization"] = self.server.authorization
        whole = False
        try:
            if self._connection is None:
                self._connection = self._open(base.hostname or "", base.port)
            self._connection.request(method, base.path + path, body=body, headers=everything)
            answer = self._connection.getresponse()
            yield answer
            whole = answer.isclosed() and not answer.will_close
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "strerror", None) or type(error).__name__
            raise PeerUnreachable(
                f"lost {self.server}: {cause}", hint="check dicomweb.*.url and that it runs"
            ) from error
        finally:
            if not whole:  # what is left of the answer would be taken for the next one
                self.close()

    def raise_for(self, status: int, *, expected: Collection[int]) -> None:
        """Raise where the server as a whole is the trouble.

        Raises
        ------
        AssociationRejected, PeerBusy, PeerUnreachable
            It does not let us in, is busy, or answers what nobody expected.
        """
        error: DeliveryError | None = None
        if status in _NOT_ALLOWED:
            error = AssociationRejected(
                f"{self.server} does not let us in (HTTP {status})",
                hint="correct user and secret_file of this dicomweb server",
            )
        elif status in _BUSY:
            error = PeerBusy(f"{self.server} is busy (HTTP {status})")
        elif status not in expected:
            error = PeerUnreachable(
                f"{self.server} answered HTTP {status}",
                hint="check dicomweb.*.url: it ends where /studies begins",
            )
        if error is not None:
            raise error

    def _open(self, host: str, port: int | None) -> http.client.HTTPConnection:
        timeout = self.server.timeout_s
        if self.server.tls is None:
            return http.client.HTTPConnection(host, port, timeout=timeout)
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=self.server.tls)


def _authorization(name: str, section: DicomWeb) -> str:
    if section.secret_file is None:
        return ""
    secret = read_secret(f"dicomweb.{name}.secret_file", section.secret_file)
    if section.user is None:
        return f"Bearer {secret}"
    return "Basic " + base64.b64encode(f"{section.user}:{secret}".encode()).decode()
