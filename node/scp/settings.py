"""What the receiver is told: its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from node.config.model import Config, UnknownPeers
from node.domain import AETitle
from node.scp.admission import Network
from node.tls import Credentials


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverSettings:
    """Who may associate, and the limits of an association."""

    ae_titles: tuple[AETitle, ...]
    """Called AE titles that are ours; all share one port."""
    host: str = "127.0.0.1"
    port: int = 11112
    """0 takes a free port; `Receiver.port` names it."""
    allowed: Mapping[AETitle, tuple[Network, ...]] = field(default_factory=dict)
    """Calling AE title -> addresses it may call from."""
    tls_port: int | None = None
    """Port for DICOM over TLS; 0 takes a free one, None offers none."""
    credentials: Credentials | None = None
    """Who we are over TLS; goes with `tls_port`."""
    tls_only: frozenset[AETitle] = frozenset()
    """Calling AE titles that are known over TLS and nowhere else."""
    tls_identities: Mapping[AETitle, frozenset[str]] = field(default_factory=dict)
    """Calling AE title -> what its certificate must be, one of these (`node.tls.identity`)."""
    accept_unknown: bool = False
    """True: anybody may associate; `allowed` is not looked at."""
    max_associations: int = 32
    max_per_address: int = 16
    """Associations from one address at one time; as many connections more may wait for one."""
    max_object_bytes: int = 2048 * 1024 * 1024
    request_timeout_s: float = 8.0
    """For a whole A-ASSOCIATE-RQ, from the connection or the end of the TLS handshake on; and for
    that handshake."""
    pdu_timeout_s: float = 10.0
    """For a whole PDU, from its first byte on."""
    idle_timeout_s: float = 60.0
    """An established association without a message is aborted after so long."""

    @classmethod
    def of(cls, config: Config) -> "ReceiverSettings":
        """Return the settings that the configuration describes."""
        node, receive = config.node, config.receive
        return cls(
            ae_titles=tuple(AETitle(title) for title in node.ae_titles),
            host=node.host,
            port=node.port,
            allowed={
                AETitle(peer.ae_title): tuple(ip_network(a, strict=False) for a in peer.addresses)
                for peer in config.peers.values()
                if peer.receive
            },
            tls_port=None if node.tls is None else node.tls.port,
            credentials=None if node.tls is None else node.tls.credentials(),
            tls_only=frozenset(AETitle(p.ae_title) for p in config.peers.values() if p.tls),
            tls_identities={
                AETitle(p.ae_title): frozenset(p.tls_identity)
                for p in config.peers.values()
                if p.tls_identity
            },
            accept_unknown=receive.unknown_peers is UnknownPeers.ACCEPT,
            max_associations=node.max_associations,
            max_per_address=node.max_associations_per_address,
            max_object_bytes=receive.max_object_mb * 1024 * 1024,
            request_timeout_s=receive.request_timeout_s,
            pdu_timeout_s=receive.pdu_timeout_s,
            idle_timeout_s=receive.idle_timeout_s,
        )
