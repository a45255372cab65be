"""The node's error tree: each class says what failed, whether to try again, and what to do next.

NodeError
├── ConfigError             configuration refused; the command exits with 2
├── OutOfResources          disk floor, ENOSPC, EDQUOT, EIO, EROFS       transient, 0xA700
├── LedgerError             the database refused or is away              transient, 0xA700
├── NotAuthorized           peer or SOP class not allowed                0x0124
├── InstanceMismatch        data set and SOP class disagree              0xA900
├── CannotUnderstand        undecodable, or a UID is missing             0xC000
└── DeliveryError
    ├── PeerUnreachable     no association, time-out, abort              transient
    ├── AssociationRejected A-ASSOCIATE-RJ; transient by its result
    ├── PeerRefused         a failure status; transient for 0xA7xx
    └── NotAccepted         no presentation context for the object

A retry policy reads `transient` and nothing else; an operator reads the message and `hint`.
Pipeline errors live in `pipelines.api` and carry the same two attributes.
"""

from typing import ClassVar


class NodeError(Exception):
    """The node could not do what was asked."""

    transient: ClassVar[bool] = False
    hint: ClassVar[str] = "see the log"

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])
        self.advice = hint or type(self).hint


class ConfigError(NodeError):
    """The configuration has problems; each one names file, line and key."""

    hint = "correct the lines named and run `rtnode check`"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class OutOfResources(NodeError):
    """The data volume cannot take the object."""

    transient = True
    hint = "free space on the data volume or lower storage.min_free_gb; senders retry"


class LedgerError(NodeError):
    """The database refused; nothing was acknowledged."""

    transient = True
    hint = "run `rtnode check`; senders retry"


class NotAuthorized(NodeError):
    """The peer may not do this."""

    hint = "add the calling AE title under peers"


class InstanceMismatch(NodeError):
    """The data set does not match the SOP class or instance that the request named."""

    hint = "the sender announced one object and sent another; look at its log"


class CannotUnderstand(NodeError):
    """The object cannot be parsed, or a UID that identifies it is missing."""

    hint = "the object is kept in quarantine; look at the sender's export settings"


class DeliveryError(NodeError):
    """An object could not be delivered."""


class PeerUnreachable(DeliveryError):
    """No association could be opened, or it broke."""

    transient = True
    hint = "check host, port and that the peer runs: `rtnode echo <peer>`"


class AssociationRejected(DeliveryError):
    """The peer rejected the association for good."""

    hint = "the peer must know our AE title, host and port"


class PeerBusy(AssociationRejected):
    """The peer rejected the association for now."""

    transient = True
    hint = "the peer is at its association limit; the delivery is tried again"


class PeerRefused(DeliveryError):
    """The peer answered with a failure status."""

    hint = "look the status up in the peer's conformance statement"


class PeerOutOfResources(PeerRefused):
    """The peer has no room for now (0xA7xx)."""

    transient = True
    hint = "free space at the peer; the delivery is tried again"


class NotAccepted(DeliveryError):
    """The peer accepts no presentation context for this object."""

    hint = "the peer does not store this SOP class; route it elsewhere"
