"""Sending stored objects over an association: what is offered, what an answer means.

A file's data set is streamed as it is stored when the peer accepts its transfer syntax. Explicit
and Implicit VR Little Endian are turned into each other when the peer knows only the other one:
a deterministic re-encoding of the same values. Nothing else is converted (PS3.4 B.2.3, PS3.7 C).
"""

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

import pydicom
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.domain import Uid
from node.errors import CannotUnderstand, NotAccepted, PeerUnreachable
from node.scu.association import MAXIMUM_CONTEXTS, Association, Context, PeerAE
from node.scu.dimse import Response
from node.store import part10

_log = logging.getLogger(__name__)

EXPLICIT: Final = Uid(part10.EXPLICIT_VR_LITTLE_ENDIAN)
IMPLICIT: Final = Uid(part10.IMPLICIT_VR_LITTLE_ENDIAN)

CONVERTIBLE: Final = {EXPLICIT: IMPLICIT, IMPLICIT: EXPLICIT}
"""Stored syntax -> the one that it can be re-encoded in without touching a value."""

_HEAD: Final = 4 * 1024
"""Bytes of a file that hold the meta information of nearly every one."""
_LONGEST_HEAD: Final = 64 * 1024
"""The same for any, with room to spare."""
_ELEMENT: Final = 8
"""Bytes of the data set that must be seen behind it, to know that it ended."""


class Outcome(StrEnum):
    """What became of one object at the peer."""

    SENT = "SENT"
    SENT_WITH_WARNING = "SENT_WITH_WARNING"
    """The peer keeps it and says what it changed or doubts."""
    UNCONFIRMED = "UNCONFIRMED"
    """Sent before and not answered: the storage commitment that is asked for next will tell."""
    RETRY = "RETRY"
    """Not kept for now; the same bytes are sent again later."""
    RETRY_FEW = "RETRY_FEW"
    """Not kept, and unclear whether it ever will be: a few more tries, then a person."""
    REFUSED = "REFUSED"
    """Not kept, and sending it again will not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row of the status table."""

    lowest: int
    highest: int
    outcome: Outcome
    meaning: str
    hint: str = ""


VERDICTS: Final[tuple[Verdict, ...]] = (
    Verdict(lowest=0x0000, highest=0x0000, outcome=Outcome.SENT, meaning="stored"),
    Verdict(
        lowest=0x0110,
        highest=0x0110,
        outcome=Outcome.RETRY_FEW,
        meaning="processing failure at the peer",
        hint="look at the log of the peer; it may miss an object that this one refers to",
    ),
    Verdict(
        lowest=0x0111,
        highest=0x0111,
        outcome=Outcome.SENT_WITH_WARNING,
        # our UIDs are made from the content, so what the peer holds under it is this object
        meaning="the peer holds this SOP Instance UID already",
    ),
    Verdict(
        lowest=0x0122,
        highest=0x0122,
        outcome=Outcome.REFUSED,
        meaning="SOP class not supported by the peer",
        hint="the peer does not store this SOP class; route it elsewhere",
    ),
    Verdict(
        lowest=0x0124,
        highest=0x0124,
        outcome=Outcome.REFUSED,
        meaning="not authorized at the peer",
        hint="the peer must allow our AE title to store",
    ),
    Verdict(
        lowest=0xA700,
        highest=0xA7FF,
        outcome=Outcome.RETRY,
        meaning="the peer is out of resources",
        hint="free space at the peer; the delivery is tried again",
    ),
    Verdict(
        lowest=0xA900,
        highest=0xA9FF,
        outcome=Outcome.REFUSED,
        meaning="the peer says that data set and SOP class do not match",
        hint="look at the log of the peer; it may need the referenced images first",
    ),
    Verdict(
        lowest=0xB000,
        highest=0xBFFF,
        outcome=Outcome.SENT_WITH_WARNING,
        meaning="stored with a warning",
    ),
    Verdict(
        lowest=0xC000,
        highest=0xCFFF,
        outcome=Outcome.REFUSED,
        meaning="the peer cannot understand the object",
        hint="look at the log of the peer; a TPS may need the referenced images first",
    ),
    Verdict(
        lowest=0x0000,
        highest=0xFFFF,
        outcome=Outcome.REFUSED,
        meaning="failure",
        hint="look the status up in the peer's conformance statement",
    ),
)
"""Status of a C-STORE response -> what we do, first match wins (PS3.4 table B.2-1, PS3.7 C)."""


def verdict(status: int) -> Verdict:
    """Return what `status` means to us; every 16-bit status has a row."""
    return next(row for row in VERDICTS if row.lowest <= status <= row.highest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One object to send."""

    path: Path
    sop_class_uid: Uid
    sop_instance_uid: Uid
    transfer_syntax_uid: Uid
    key: int = 0
    """Whatever the caller knows it by, e.g. the id of a delivery."""
    doubtful: bool = False
    """An earlier attempt ended without an answer: the peer may hold it."""
    report: Path | None = None
    """Folder with the tables of the job that made it; a folder as destination takes them too."""

    @classmethod
    def read(cls, path: Path) -> "Outgoing":
        """Describe a DICOM file by its own header.

        Raises
        ------
        CannotUnderstand
            If this is no DICOM file with SOP class and instance UID.
        """
        try:
            with path.open("rb") as file:
                syntax, _ = _start_of_data_set(file)
            header = pydicom.dcmread(
                path,
                force=True,
                stop_before_pixels=True,
                specific_tags=["SOPClassUID", "SOPInstanceUID"],
            )
            return cls(
                path=path,
                sop_class_uid=Uid(header.SOPClassUID),
                sop_instance_uid=Uid(header.SOPInstanceUID),
                transfer_syntax_uid=syntax,
            )
        except CannotUnderstand:
            raise
        except Exception as error:
            raise CannotUnderstand("not a DICOM file with SOP class and instance UID") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the peer made of one object."""

    item: Outgoing
    outcome: Outcome
    status: int | None
    """Of the response; None where no context was accepted or the file could not be read."""
    reason: str
    hint: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the peer keeps the object."""
        return self.outcome in (Outcome.SENT, Outcome.SENT_WITH_WARNING)


def contexts_for(items: Iterable[Outgoing]) -> list[Context]:
    """Return the presentation contexts that `items` need, each once, in a stable order."""
    contexts: dict[Context, None] = {}
    for item in items:
        contexts[Context(item.sop_class_uid, item.transfer_syntax_uid)] = None
        other = CONVERTIBLE.get(item.transfer_syntax_uid)
        if other is not None:
            contexts[Context(item.sop_class_uid, other)] = None
    return list(contexts)


def batches(items: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Split `items`, in their order, so that the contexts of each part fit one association."""
    part: list[Outgoing] = []
    needed: set[Context] = set()
    for item in items:
        more = set(contexts_for([item]))
        if part and len(needed | more) > MAXIMUM_CONTEXTS:
            yield part
            part, needed = [], set()
        part.append(item)
        needed |= more
    if part:
        yield part


def send(association: Association, item: Outgoing) -> Result:
    """Send one object and say what became of it.

    Raises
    ------
    PeerUnreachable
        The association is gone; nothing is known about the object.
    """
    return next(send_each(association, [item]))


def send_each(association: Association, items: Sequence[Outgoing]) -> Iterator[Result]:
    """Send objects one after the other; yield what became of each.

    While the peer works on one, the file of the next is opened and looked at, so that the peer
    does not wait for our disk.

    Raises
    ------
    PeerUnreachable
        The association is gone; nothing is known about the object that came next.
    """
    following: _Ready | Result | None = None
    try:
        for number, item in enumerate(items):
            ready, following = following or _prepared(association, item), None
            if isinstance(ready, _Ready):
                ready.begin(association)
                if number + 1 < len(items):
                    following = _prepared(association, items[number + 1])
                yield _judged(item, association.end_store())
            else:
                yield ready
    finally:
        if isinstance(following, _Ready):
            following.file.close()


def _judged(item: Outgoing, answer: Response) -> Result:
    row = verdict(answer.status)
    return Result(
        item=item,
        outcome=row.outcome,
        status=answer.status,
        reason=f"{row.meaning} (0x{answer.status:04X})",
        hint=row.hint,
    )


def send_batch(
    peer: PeerAE, items: Sequence[Outgoing], on_result: Callable[[Result], None]
) -> None:
    """Send `items` over as few associations as their contexts allow; report each one at once.

    Raises
    ------
    AssociationRejected, PeerBusy, PeerUnreachable
        No association, or it broke: the objects that were not reported have no known fate.
    """
    for part in batches(items):
        with Association.open(peer, contexts_for(part)) as association:
            for result in send_each(association, part):
                on_result(result)


def _accepted_context(association: Association, item: Outgoing) -> Context:
    """Return the context to send `item` in: as stored if possible, else re-encoded."""
    stored = Context(item.sop_class_uid, item.transfer_syntax_uid)
    if stored in association.accepted:
        return stored
    other = CONVERTIBLE.get(item.transfer_syntax_uid)
    if other is not None and Context(item.sop_class_uid, other) in association.accepted:
        return Context(item.sop_class_uid, other)
    raise NotAccepted(
        f"{association.peer.ae_title} accepts no presentation context for SOP class"
        f" {item.sop_class_uid} in transfer syntax {item.transfer_syntax_uid}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """An object that can be sent at once."""

    item: Outgoing
    context: Context
    file: BinaryIO
    data: BinaryIO
    """The data set in the syntax of the context: the file itself, or what was made of it."""
    length: int

    def begin(self, association: Association) -> None:
        """Send it; an error in the middle of the file leaves the association unusable."""
        with self.file:
            try:
                association.begin_store(
                    self.context, self.item.sop_instance_uid, self.data, self.length
                )
            except OSError as error:
                raise PeerUnreachable(
                    f"reading the stored file failed: {error.strerror}"
                ) from error


def _prepared(association: Association, item: Outgoing) -> _Ready | Result:
    """Return an object ready to be sent, or why it cannot be.

    An unreadable file is our own fault and no reason to stop the batch, so it is refused before
    a byte of it is sent.
    """
    try:
        context = _accepted_context(association, item)
        file = _opened(item)
        try:
            data, length = _in_syntax(file, item.transfer_syntax_uid, context.transfer_syntax_uid)
        except BaseException:
            file.close()
            raise
    except (NotAccepted, CannotUnderstand) as error:
        hint = error.advice if isinstance(error, NotAccepted) else "run `rtnode check`"
        return Result(item=item, outcome=Outcome.REFUSED, status=None, reason=str(error), hint=hint)
    return _Ready(item=item, context=context, file=file, data=data, length=length)


def _opened(item: Outgoing) -> BinaryIO:
    try:
        return item.path.open("rb", buffering=0)
    except OSError as error:
        raise NotAccepted(
            f"the stored file cannot be read: {error.strerror}",
            hint="run `rtnode check`; the data volume may be failing",
        ) from error


def _in_syntax(file: BinaryIO, recorded: Uid, wanted: Uid) -> tuple[BinaryIO, int]:
    stored, start = _start_of_data_set(file)
    if stored != recorded:
        raise CannotUnderstand("the stored file has another transfer syntax than recorded")
    if stored == wanted:
        length = file.seek(0, io.SEEK_END) - start
        file.seek(start)
        data = file
    else:
        data = io.BytesIO(reencoded(file, implicit=wanted == IMPLICIT))
        length = len(data.getbuffer())
    if length <= 0:
        raise CannotUnderstand("the stored file has an empty data set")
    return data, length


def reencoded(file: BinaryIO, *, implicit: bool) -> bytes:
    """Return the little endian data set of a DICOM file with or without explicit VRs.

    The same file gives the same bytes: order and values are those of the file, only the way that
    VR and length are written changes.

    Raises
    ------
    CannotUnderstand
        If the file cannot be read as DICOM.
    """
    try:
        file.seek(0)
        dataset = pydicom.dcmread(file, force=True)
        buffer = DicomBytesIO()
        buffer.is_little_endian = True
        buffer.is_implicit_VR = implicit
        write_dataset(buffer, dataset)
        return bytes(buffer.getvalue())
    except Exception as error:
        raise CannotUnderstand("the stored file cannot be re-encoded") from error


def _start_of_data_set(file: BinaryIO) -> tuple[Uid, int]:
    """Return the transfer syntax of a DICOM file and the offset of its data set."""
    found = None
    with suppress(CannotUnderstand):
        found = _split(file, _HEAD)
    syntax, start, seen = found or (Uid(""), 0, 0)
    if seen < _ELEMENT:
        syntax, start, _ = _split(file, _LONGEST_HEAD)
    return syntax, start


def _split(file: BinaryIO, size: int) -> tuple[Uid, int, int]:
    """Return syntax and offset by the first `size` bytes, and how many of them are behind it."""
    file.seek(0)
    head = file.read(size)
    content = part10.split(head)
    return Uid(content.transfer_syntax_uid), len(head) - len(content.data), len(content.data)
