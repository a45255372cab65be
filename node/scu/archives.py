"""What the puller can ask: find and retrieve, by DIMSE (C-FIND with C-MOVE or C-GET) here.

A DICOMweb server that can do the same is in `node.scu.wado`.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

from pydicom.dataset import Dataset

from node.config.model import Pull
from node.domain import AETitle, Door, Uid
from node.errors import NotAccepted, PeerRefused
from node.scu.association import PeerAE
from node.scu.bringing import Bringing
from node.scu.query import Retrieved, find, get, move
from node.store.series import PULL_BEGAN, PULL_ENDED

RETRIEVED_CLASSES: Final = tuple(
    Uid(uid)
    for uid in (
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.5.1.4.1.1.4",
        "1.2.840.10008.5.1.4.1.1.128",
        "1.2.840.10008.5.1.4.1.1.481.3",
        "1.2.840.10008.5.1.4.1.1.481.5",
        "1.2.840.10008.5.1.4.1.1.481.8",
        "1.2.840.10008.5.1.4.1.1.66.1",
        "1.2.840.10008.5.1.4.1.1.66.3",
    )
)
"""CT, MR, PET, RT Structure Set, RT Plan, RT Ion Plan, spatial and deformable registration."""


class Archive(Protocol):
    """Somebody to fetch from."""

    @property
    def name(self) -> str:
        """Name in the configuration."""
        ...

    @property
    def pause_s(self) -> float:
        """Rest between two retrievals."""
        ...

    def find(self, keys: Dataset, *, limit: int) -> list[Dataset]:
        """Return what it says that it holds, at most `limit` matches; a `DeliveryError` if not."""
        ...

    def retrieve(self, keys: Dataset) -> Retrieved:
        """Let what `keys` name come in by the door; a `DeliveryError` if that failed."""
        ...

    def close(self) -> None:
        """Let go of what is held open: the search is over."""
        ...


class Note(Protocol):
    """`Ledger.note`."""

    def __call__(
        self, action: str, *, kind: str, subject: str, correlation: str = "", **detail: object
    ) -> None:
        """Append an event."""
        ...


def _unnoted(
    action: str, *, kind: str, subject: str, correlation: str = "", **detail: object
) -> None:
    """Keep nothing: for an archive without a ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerArchive:
    """A remote application entity."""

    name: str
    peer: PeerAE
    pull: Pull
    pause_s: float
    door: Door
    """Where the objects of a C-GET go."""
    title: AETitle
    """Ours: where a C-MOVE sends to."""
    largest: int
    """Most bytes of one object of a C-GET."""
    note: Note = field(default=_unnoted)
    """What a C-MOVE did not bring must be known when its series is judged."""

    def find(self, keys: Dataset, *, limit: int) -> list[Dataset]:
        """Ask by C-FIND."""
        return find(self.peer, keys, limit=limit)

    def retrieve(self, keys: Dataset) -> Retrieved:
        """Retrieve as this peer is configured."""
        return self._move(keys) if self.pull is Pull.MOVE else self._get(keys)

    def close(self) -> None:
        """Nothing is held open."""

    def _move(self, keys: Dataset) -> Retrieved:
        """Let the archive send a series to us, and note whether it sent all of it.

        Its own association ends in order either way, so without the note a part of a series would
        count as whole.
        """
        series = str(keys.SeriesInstanceUID)
        self.note(PULL_BEGAN, kind="series", subject=series, peer=self.peer.ae_title)
        failed = 1  # an answer that never comes tells of no success
        try:
            done = move(self.peer, keys, self.title)
            failed = done.failed
        except (NotAccepted, PeerRefused):
            failed = 0  # it sent nothing at all
            raise
        finally:
            self.note(
                PULL_ENDED, kind="series", subject=series, peer=self.peer.ae_title, failed=failed
            )
        return done

    def _get(self, keys: Dataset) -> Retrieved:
        """Take objects in over our own association."""
        with Bringing(
            self.door,
            keys,
            name=self.name,
            calling=self.peer.ae_title,
            called=self.title,
            address=self.peer.host,
        ) as bringing:
            done = get(self.peer, keys, RETRIEVED_CLASSES, bringing.take, largest=self.largest)
            bringing.whole = not done.failed
        return done
