"""Objects that come over a connection of ours (C-GET, WADO-RS), on their way to the door.

They enter by the same door as any C-STORE and are durable before they count. Only what belongs to
the series that was asked for is let in: who it is stands at the beginning of each object, so the
first bytes are held back until that is clear, and the rest goes to the disk as it comes.
"""

import io
import logging
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Final, NamedTuple, Self

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from node.domain import AETitle, Arrival, Door, Source, Uid
from node.errors import CannotUnderstand, NodeError
from node.log import event
from node.store.header import parse_header
from node.store.part10 import IMPLICIT_VR_LITTLE_ENDIAN

_log = logging.getLogger(__name__)

HEAD: Final = 256 * 1024
"""Bytes in which study and series of an object must have been named."""
_NOT_AUTHORIZED: Final = 0x0124
"""What a sub-operation is answered that nobody asked for (PS3.7 C.5.3)."""
_OUT_OF_RESOURCES: Final = 0xA700
_CANNOT_UNDERSTAND: Final = 0xC000
_SUCCESS: Final = 0x0000
_NAMES: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_LAST_NAME: Final = Tag(_NAMES[-1])
"""The last of the tags that say who an object is."""


class Names(NamedTuple):
    """Who an object is."""

    sop_class_uid: Uid
    sop_instance_uid: Uid
    study_instance_uid: Uid
    series_instance_uid: Uid


class Bringing:
    """One retrieval: what came, what was refused, and how it ended in the ledger.

    Parameters
    ----------
    door : Door
    keys : Dataset
        Study, series and perhaps instances that were asked for.
    name : str
        Of the archive, for the log.
    calling, called : AETitle
        As whom the archive counts, and ours.
    address : str
        Of the archive.
    """

    def __init__(
        self,
        door: Door,
        keys: Dataset,
        *,
        name: str,
        calling: AETitle,
        called: AETitle,
        address: str,
    ) -> None:
        self.received = 0
        self.refused = 0
        self.whole = False
        """Set by the caller: the archive said that this was all, and nothing failed."""
        self._door = door
        self._keys = keys
        self._name = name
        self._source = Source(
            calling_ae_title=calling,
            called_ae_title=called,
            address=address,
            association_id=secrets.token_hex(4),
        )

    def __enter__(self) -> Self:
        self._door.association_opened(self._source)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        end = "LOST"
        if kind is None:
            # an end in order would be evidence that the series is whole
            end = "RELEASED" if self.whole and not self.refused else "ABORTED"
        self._door.association_ended(
            self._source.association_id, end=end, received=self.received, refused=self.refused
        )

    def take(
        self, *, sop_class_uid: Uid, sop_instance_uid: Uid, transfer_syntax_uid: Uid
    ) -> "Coming":
        """Begin to take in an object that the archive announces."""
        return Coming(
            self,
            lambda: self._door.receive(
                transfer_syntax_uid=transfer_syntax_uid,
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                source=self._source,
            ),
            transfer_syntax_uid,
        )

    def asked_for(self, head: bytes, transfer_syntax_uid: Uid, *, whole: bool) -> bool:
        """Tell whether an object is one of those that were asked for, by what it says itself."""
        try:
            said = (
                _read_whole(head, transfer_syntax_uid)
                if whole
                else named(head, transfer_syntax_uid)
            )
        except CannotUnderstand:
            return whole  # the door keeps a small one in quarantine and says why
        wanted = self._keys.get("SOPInstanceUID") or [said.sop_instance_uid]
        return (
            said.study_instance_uid == self._keys.StudyInstanceUID
            and said.series_instance_uid == self._keys.SeriesInstanceUID
            and said.sop_instance_uid in ([wanted] if isinstance(wanted, str) else wanted)
        )

    def note(self, status: int) -> None:
        """Count an object that was answered."""
        if status == _SUCCESS:
            self.received += 1
            return
        self.refused += 1
        if status == _NOT_AUTHORIZED:
            event(_log, "retrieved_refused", level=logging.WARNING, peer=self._name,
                  assoc=self._source.association_id,
                  reason="it is of another series than was asked for")  # fmt: skip


class Coming:
    """One object as its bytes come; used by one thread."""

    def __init__(
        self, bringing: Bringing, receive: Callable[[], Arrival], transfer_syntax_uid: Uid
    ) -> None:
        self._bringing = bringing
        self._receive = receive
        self._syntax = transfer_syntax_uid
        self._head: bytearray | None = bytearray()
        """What came before it was clear who the object is; None from then on."""
        self._arrival: Arrival | None = None
        self._status = _NOT_AUTHORIZED

    def write(self, fragment: memoryview, /) -> None:
        """Take the next bytes of the data set."""
        if self._head is not None:
            self._head += fragment
            if len(self._head) >= HEAD:
                self._decide(whole=False)
        elif self._arrival is not None:
            self._arrival.write(fragment)

    def finish(self) -> int:
        """Return the status of the object: 0x0000 when it is durable."""
        if self._head is not None:
            self._decide(whole=True)
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            try:
                arrival.accept()
                self._status = _SUCCESS
            except NodeError as error:
                self._status = _status_of(error)
        self._bringing.note(self._status)
        return self._status

    def discard(self) -> None:
        """Forget the object: it did not come whole. Harmless after `finish`."""
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.discard()

    def _decide(self, *, whole: bool) -> None:
        head, self._head = bytes(self._head or b""), None
        if self._bringing.asked_for(head, self._syntax, whole=whole):
            try:
                self._arrival = self._receive()
            except NodeError as error:
                self._status = _status_of(error)
            else:
                self._arrival.write(memoryview(head))


def _status_of(error: NodeError) -> int:
    return _OUT_OF_RESOURCES if error.transient else _CANNOT_UNDERSTAND


def named(head: bytes, transfer_syntax_uid: Uid) -> Names:
    """Return who an object is of which the first bytes are there.

    Raises
    ------
    CannotUnderstand
        That is not in `head`, or it is no data set.
    """
    try:
        ds = pydicom.filereader.read_dataset(
            io.BytesIO(head),
            is_implicit_VR=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
            is_little_endian=True,
            stop_when=_behind_names,
            specific_tags=[Tag(keyword) for keyword in _NAMES],
        )
        return Names(*(Uid(str(ds[keyword].value)) for keyword in _NAMES))
    except Exception as error:
        raise CannotUnderstand("the object does not say where it belongs") from error


def _read_whole(data: bytes, transfer_syntax_uid: Uid) -> Names:
    header = parse_header(data, transfer_syntax_uid)
    return Names(
        header.sop_class_uid,
        header.sop_instance_uid,
        header.study_instance_uid,
        header.series_instance_uid,
    )


def _behind_names(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _LAST_NAME)
