"""How a peer can break the upper layer protocol, and what it is told when it does (PS3.8 9.3.8)."""

from enum import IntEnum


class AbortReason(IntEnum):
    """Why we abort, as the provider says it in an A-ABORT (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER = 6


class ProtocolError(OSError):
    """A peer broke a rule or a limit; its connection is closed. An OSError, as what cuts one is."""

    def __init__(
        self, message: str, *, reason: AbortReason = AbortReason.INVALID_PARAMETER
    ) -> None:
        super().__init__(message)
        self.reason = reason
