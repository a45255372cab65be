"""The section ``audit``: who else gets the audit trail."""

from pydantic import Field

from node.config.types import ConfigPath, Port, Section
from node.tls import Credentials

SYSLOG_TLS_PORT = 6514
"""Registered for syslog over TLS (RFC 5425 4.1)."""


class AuditSection(Section):
    """A syslog server that gets the audit trail as DICOM audit messages, over mutual TLS.

    The trail itself is kept in the database in any case. These messages name patients and studies
    by their identifiers (PS3.15 A.5): the server must be one that may know them.
    """

    host: str = Field(
        min_length=1, description="Syslog server over TLS (RFC 5425).", examples=["audit.example"]
    )
    port: Port = Field(
        default=SYSLOG_TLS_PORT, description="Its TCP port.", examples=[SYSLOG_TLS_PORT]
    )
    tls_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name in its certificate, where that is not `host`.",
        examples=["audit.example.org"],
    )
    certificate: ConfigPath = Field(
        description="Our certificate (PEM); the one under node.tls will do.",
        examples=["tls/rtnode.crt"],
    )
    key: ConfigPath = Field(
        description="Its private key (PEM, no passphrase), readable by the node's user alone.",
        examples=["tls/rtnode.key"],
    )
    authorities: ConfigPath = Field(
        description="Certificates (PEM) of the authorities that sign that of the server.",
        examples=["tls/authorities.crt"],
    )
    site: str = Field(
        default="",
        max_length=64,
        description="Which hospital or department we report from (AuditEnterpriseSiteID).",
        examples=["radiotherapy"],
    )

    def credentials(self) -> Credentials:
        """Return who we are and whom we believe."""
        return Credentials(certificate=self.certificate, key=self.key, authorities=self.authorities)
