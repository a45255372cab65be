"""Rebuilding the index from the files: for a database that is gone beyond its backups.

Each whole file that has no row enters once more through the one door, so it is parsed, hashed and
checked like an object that a peer sends. What the file does not hold is lost: who sent it and
when, and what became of it. Results of the node come back as objects of its own make, which
start nothing; everything else is judged by the routes anew, with the same result UIDs as before.
"""

from dataclasses import dataclass

from node.domain import AETitle, Kept, Source
from node.errors import CannotUnderstand
from node.store.store import Store

REBUILT = AETitle("REBUILT")
"""Calling AE title of what was found on disk: routes that ask for a sender do not match it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What was found."""

    restored: int
    known: int
    """Copies of what the index has."""
    unreadable: int
    """Left in the orphan area, for a person to look at."""


def rebuild(store: Store, called: AETitle) -> Rebuilt:
    """Take every file of the orphan area into the index again; safe to repeat.

    A start sets all files without a row aside, so that is where they are.

    Raises
    ------
    OutOfResources, LedgerError
        Stopped in the middle; call again.
    """
    counts = {Kept.STORED: 0, Kept.CONFLICT: 0, Kept.DUPLICATE: 0}
    unreadable = 0
    source = Source(
        calling_ae_title=REBUILT, called_ae_title=called, address="folder", association_id="rebuild"
    )
    for path in store.files.orphans():
        try:
            counts[store.intake.accept_file(path, source).kept] += 1
        except CannotUnderstand:  # the quarantine may be full, or a limit lower than it was
            unreadable += 1
        else:
            store.files.forget_orphan(path)
    return Rebuilt(
        restored=counts[Kept.STORED] + counts[Kept.CONFLICT],
        known=counts[Kept.DUPLICATE],
        unreadable=unreadable,
    )
