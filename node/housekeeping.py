"""What a node does now and then: check its database, remove files of finished work.

Nothing is configured by default, and nothing that anybody may still need is ever removed
(`node.store.retention`). The rules are pure functions of what the ledger says, so ``rtnode purge
--dry-run`` tells what the next round would do.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from typing_extensions import override

from node.config.model import RetentionSection
from node.domain import Clock
from node.log import event
from node.rounds import Rounds
from node.store.ledger import Ledger
from node.store.retention import BATCH, Purgeable
from node.store.volume import GIGABYTE

_log = logging.getLogger(__name__)

ROUND_S: Final = 3600.0
"""Time between two rounds. [s]"""
_CHECK_EVERY: Final = 24
"""Rounds between two whole checks of the database; the first comes after one round."""
_AGE: Final = "older than retention.keep_days"
_SIZE: Final = "more than retention.keep_gb are kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A file that is to go, and the rule that says so."""

    file: Purgeable
    reason: str


def choose(ledger: Ledger, rules: RetentionSection, clock: Clock) -> Iterator[Choice]:
    """Yield what the rules would remove now, oldest first; looks, and changes nothing."""
    now = clock.now()
    over = ledger.kept_bytes() - rules.keep_gb * GIGABYTE if rules.keep_gb else 0.0
    oldest = now - timedelta(days=rules.keep_days) if rules.keep_days else None
    if oldest is None and over <= 0:
        return
    for file in ledger.purgeable(now if over > 0 or oldest is None else oldest):
        aged = oldest is not None and file.created_at < oldest
        if not aged and over <= 0:
            return
        yield Choice(file=file, reason=_AGE if aged else _SIZE)
        over -= file.size


class Housekeeping(Rounds):
    """One thread that keeps the rules.

    Parameters
    ----------
    ledger
        Of the node that owns the data folder.
    rules
        What may go; by default nothing.
    """

    def __init__(self, ledger: Ledger, rules: RetentionSection, clock: Clock) -> None:
        super().__init__("housekeeping", failure_pause_s=ROUND_S)
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._rounds = 0

    @override
    def run_once(self) -> float:
        """Tidy; every `_CHECK_EVERY` rounds read the whole database too."""
        number, self._rounds = self._rounds, self._rounds + 1
        self.tidy()
        if number % _CHECK_EVERY == 1:
            self.check()
        return ROUND_S

    def tidy(self) -> int:
        """Do one round; return how many files went.

        Raises
        ------
        NodeError
            The disk or the database refused; the next round goes on.
        """
        self._ledger.purge_leftovers()
        removed = 0
        for batch in _batches(choose(self._ledger, self._rules, self._clock)):
            if self._stopping.is_set():
                break
            for reason in dict.fromkeys(choice.reason for choice in batch):
                files = [choice.file for choice in batch if choice.reason == reason]
                gone = self._ledger.purge(files, reason=reason)
                removed += gone
                event(_log, "files_purged", files=gone, reason=reason)
        return removed

    def check(self) -> bool:
        """Read the whole database; return whether it is sound, and tell if it is not.

        Raises
        ------
        LedgerError
            It cannot be read at all.
        """
        found = self._ledger.database_damage()
        if found:
            event(_log, "database_damaged", level=logging.ERROR, problems=len(found),
                  first=found[0])  # fmt: skip
        return not found


def _batches(choices: Iterable[Choice]) -> Iterator[list[Choice]]:
    iterator = iter(choices)
    while batch := list(islice(iterator, BATCH)):
        yield batch
