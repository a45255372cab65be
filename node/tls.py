"""DICOM TLS for both directions: contexts after BCP 195, and a handshake with one deadline.

PS3.15 B.9 and B.10 (BCP 195, RFC 8996 and RFC 9325): TLS 1.2 or 1.3, forward secrecy, AES-GCM or
ChaCha20. Both sides show a certificate. As requestor we also check that the peer's certificate
names the host that we called. `problems` tells everything that is wrong with the files at once,
because a node that finds out at its first connection has started too early.
"""

import hashlib
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from node.errors import ConfigError
from node.secret import open_to_others

DEFAULT_PORT: Final = 2762
"""Registered for DICOM over TLS (PS3.8 9.1.1, ``dicom-tls``)."""

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2; those of TLS 1.3 are all good (RFC 9325 4.2)."""


class HandshakeFailed(OSError):
    """The peer did not become a TLS peer; an OSError, so that callers need no other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are, and whom we believe; paths of PEM files."""

    certificate: Path
    """Our certificate, followed by those between it and its authority."""
    key: Path
    """Private key of our certificate, without a passphrase."""
    authorities: Path
    """Certificates of the authorities that sign those of our peers."""
    only_tls_1_3: bool = False


def acceptor_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of the listening side: the peer must show a certificate we believe.

    Raises
    ------
    ConfigError
        A file is missing, unreadable, expired, open to others, or does not fit the others.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER, credentials)


def requestor_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the context of the calling side: the peer's certificate must name its host.

    Raises
    ------
    ConfigError
        As `acceptor_context`.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, credentials)


def handshake(
    connection: socket.socket,
    context: ssl.SSLContext,
    *,
    seconds: float,
    host: str | None = None,
) -> ssl.SSLSocket:
    """Make a TCP connection a TLS connection within one deadline, however slowly the peer drips.

    Parameters
    ----------
    connection : socket.socket
        Connected; it belongs to the returned socket, and is closed when the handshake fails.
    context : ssl.SSLContext
    seconds : float
        For the whole handshake.
    host : str, optional
        The name that the peer's certificate must have; needed as requestor.

    Returns
    -------
    ssl.SSLSocket
        Blocking, without a timeout.

    Raises
    ------
    HandshakeFailed
        In words that name no certificate's holder.
    """
    secure = wrapped(connection, context, host=host)
    shake_hands(secure, seconds=seconds)
    return secure


def wrapped(
    connection: socket.socket, context: ssl.SSLContext, *, host: str | None = None
) -> ssl.SSLSocket:
    """Return the socket that takes over a TCP connection, before the first byte of TLS.

    From here on `connection` is an empty shell: who wants to cut it must cut what is returned.

    Raises
    ------
    HandshakeFailed
        The connection is gone; it is closed.
    """
    try:
        return context.wrap_socket(
            connection,
            server_side=context.protocol is ssl.PROTOCOL_TLS_SERVER,
            do_handshake_on_connect=False,
            server_hostname=host,
        )
    except (OSError, ValueError) as error:
        connection.close()
        raise HandshakeFailed(_cause(error)) from error


def shake_hands(secure: ssl.SSLSocket, *, seconds: float) -> None:
    """Do the handshake within one deadline; the socket blocks afterwards, without a timeout.

    Raises
    ------
    HandshakeFailed
        As `handshake`; the socket is closed.
    """
    try:
        secure.settimeout(seconds)  # `do_handshake` takes it for all its steps together
        secure.do_handshake()
        secure.settimeout(None)
    except (OSError, ValueError) as error:
        secure.close()
        raise HandshakeFailed(_cause(error)) from error


def identity(text: str) -> str:
    """Return the one spelling of what a peer's certificate must be.

    ``sha256:`` and the fingerprint of the certificate, with or without colons; ``CN=`` and its
    common name; ``DNS:`` and a name for which it was issued.

    Raises
    ------
    ValueError
        It is none of the three.
    """
    kind, mark, value = text.partition("=" if text.startswith("CN=") else ":")
    if kind == "sha256":
        digits = value.replace(":", "").lower()
        if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
            raise ValueError("the SHA-256 fingerprint of a certificate has 64 hexadecimal digits")
        return f"sha256:{digits}"
    if kind not in ("CN", "DNS") or not value.strip():
        raise ValueError("write sha256:<fingerprint>, CN=<common name> or DNS:<name>")
    return f"{kind}{mark}{value.strip().lower() if kind == 'DNS' else value.strip()}"


def identities(secure: ssl.SSLSocket) -> frozenset[str]:
    """Return every `identity` of the certificate that the peer has shown; none without one."""
    encoded = secure.getpeercert(binary_form=True)
    if not encoded:
        return frozenset()
    found = {f"sha256:{hashlib.sha256(encoded).hexdigest()}"}
    certificate: Mapping[str, Any] = secure.getpeercert() or {}
    for names in certificate.get("subject", ()):
        found |= {f"CN={value}" for key, value in names if key == "commonName"}
    for key, value in certificate.get("subjectAltName", ()):
        found |= {f"DNS:{value.lower()}"} if key == "DNS" else set()
    return frozenset(found)


def problems(credentials: Credentials) -> list[str]:
    """Return everything that is wrong with the files; each entry begins with the file's role."""
    found = [
        f"{role}: {reason}"
        for role, path in (
            ("certificate", credentials.certificate),
            ("key", credentials.key),
            ("authorities", credentials.authorities),
        )
        if (reason := _unreadable(path))
    ]
    if not found:
        if wrong := open_to_others(credentials.key):
            found.append(f"key: {wrong}")
        found += _unusable(credentials)
    return found


def valid_until(credentials: Credentials) -> datetime:
    """Return when our certificate expires (UTC).

    Raises
    ------
    ssl.SSLError
        It is not valid now, or the key is not its key.
    """
    # The standard library decodes a certificate only for a peer that it believes, so we are our
    # own peer for a moment, in memory.
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(credentials.certificate, credentials.key, _no_passphrase)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    theirs.load_verify_locations(credentials.certificate)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(back, there)
    server = ours.wrap_bio(there, back, server_side=True)
    for _ in range(2):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = client.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), tz=UTC)


def _context(protocol: int, credentials: Credentials) -> ssl.SSLContext:
    found = problems(credentials)
    if found:
        raise ConfigError([f"node.tls.{problem}" for problem in found])
    context = ssl.SSLContext(protocol)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if credentials.only_tls_1_3 else ssl.TLSVersion.TLSv1_2
    )
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(credentials.certificate, credentials.key, _no_passphrase)
    context.load_verify_locations(credentials.authorities)
    return context


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return f"cannot read {path}: {error.strerror or type(error).__name__}"
    return ""


def _unusable(credentials: Credentials) -> Iterator[str]:
    try:
        valid_until(credentials)
    except (ssl.SSLError, ValueError, KeyError) as error:
        yield f"certificate: {credentials.certificate} with its key: {_cause(error)}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(credentials.authorities)
    except ssl.SSLError as error:
        yield f"authorities: {credentials.authorities}: {_cause(error)}"


def _no_passphrase() -> str:
    """Answer for a key with a passphrase; without it OpenSSL would ask at the terminal."""
    return ""


def _cause(error: Exception) -> str:
    """Return the library's words without the place in its source and without names."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate or key in PEM").replace("_", " ").lower()
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
