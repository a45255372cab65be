"""The clock of a running node; tests hand in their own."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `node.domain.Clock` with the machine's clocks."""

    def now(self) -> datetime:
        """Return the aware UTC time."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return time.monotonic()
