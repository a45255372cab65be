"""C-FIND, C-MOVE and C-GET as user: what does a peer hold, and let it come here.

Study Root only. A query asks for exact keys and its answers are checked against them: a peer that
answers something else, or more than was asked for, is not believed. What a C-GET brings is handed
to the same door as any C-STORE and is answered only when it is durable.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from node.domain import AETitle, Uid
from node.errors import NotAccepted, PeerRefused, PeerUnreachable
from node.scu.association import Association, Context, Message, PeerAE, Roles
from node.scu.dimse import (
    C_FIND_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RQ,
    RESPONSE,
    MalformedMessage,
    c_cancel_rq,
    c_find_rq,
    c_get_rq,
    c_move_rq,
    count,
    has_data_set,
    number,
    uid,
)
from node.store.part10 import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

FIND: Final = Uid("1.2.840.10008.5.1.4.1.2.2.1")
MOVE: Final = Uid("1.2.840.10008.5.1.4.1.2.2.2")
GET: Final = Uid("1.2.840.10008.5.1.4.1.2.2.3")
SERVICES: Final[Mapping[Uid, str]] = {
    FIND: "Study Root Query/Retrieve - FIND",
    MOVE: "Study Root Query/Retrieve - MOVE",
    GET: "Study Root Query/Retrieve - GET",
}
"""SOP Class UID -> name."""

_SYNTAXES: Final = (Uid(EXPLICIT_VR_LITTLE_ENDIAN), Uid(IMPLICIT_VR_LITTLE_ENDIAN))
_SUCCESS: Final = 0x0000
_PENDING: Final = frozenset({0xFF00, 0xFF01})
_WARNING: Final = 0xB000
"""C-MOVE and C-GET: complete, with failures of some sub-operations."""
_LARGEST_ANSWER: Final = 1024 * 1024
"""Bytes of one C-FIND match."""
_UIDS_AT_A_TIME: Final = 50
_UNHEEDED: Final = 10_000
"""Matches that are passed over after a cancel; what is on its way, and a lot more."""


class Coming(Protocol):
    """An object that a C-GET brings (`node.scu.bringing.Coming`)."""

    def write(self, fragment: memoryview, /) -> None:
        """Take the next bytes of the data set."""
        ...

    def finish(self) -> int:
        """Return the status to answer with, once the object is durable or refused."""
        ...

    def discard(self) -> None:
        """Forget the object: it did not come whole. Harmless after `finish`."""
        ...


class Take(Protocol):
    """Begins to take in an object."""

    def __call__(
        self, *, sop_class_uid: Uid, sop_instance_uid: Uid, transfer_syntax_uid: Uid
    ) -> Coming:
        """Return where its bytes go."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """How a C-MOVE or C-GET ended."""

    completed: int
    failed: int
    status: int


def find(peer: PeerAE, keys: Dataset, *, limit: int) -> list[Dataset]:
    """Return what a peer says that it holds.

    Parameters
    ----------
    peer : PeerAE
    keys : Dataset
        Identifier with QueryRetrieveLevel.
    limit : int
        Most matches; the query is canceled beyond them.

    Raises
    ------
    NotAccepted
        The peer offers no query.
    PeerRefused
        It answers with a failure.
    PeerUnreachable
        No association, or it broke.
    """
    with _opened(peer, FIND) as (association, context_id, syntax):
        message_id = association.next_message_id()
        command = c_find_rq(message_id=message_id, sop_class_uid=FIND)
        association.send(context_id, command, _encoded(keys, syntax))
        found: list[Dataset] = []
        unwanted = 0
        while True:
            message = _response(association, C_FIND_RQ, message_id)
            status = number(message.command, 0x0900)
            if status in _PENDING and len(found) < limit:
                found.append(_decoded(message.data, syntax))
            elif status in _PENDING:
                if not unwanted:
                    association.send(context_id, c_cancel_rq(message_id=message_id))
                unwanted += 1
                if unwanted > _UNHEEDED:
                    raise PeerUnreachable(f"{peer} does not heed the cancel of a query")
            elif status == _SUCCESS or unwanted:
                return found
            else:
                raise PeerRefused(f"{peer} refuses the query (0x{status:04X})")


class Find(Protocol):
    """Asks somebody what he holds (`find` of one peer, or of an archive)."""

    def __call__(self, keys: Dataset, *, limit: int) -> list[Dataset]:
        """Return the matches."""
        ...


def held_at(peer: PeerAE, study: Uid, series: Uid, wanted: Collection[Uid]) -> set[Uid]:
    """Return those of `wanted` that a peer holds in a series (C-FIND at IMAGE level).

    Raises
    ------
    NotAccepted, PeerRefused, PeerUnreachable
        As `find`.
    """
    return held_by(partial(find, peer), study, series, wanted)


def held_by(ask: Find, study: Uid, series: Uid, wanted: Collection[Uid]) -> set[Uid]:
    """Return those of `wanted` that are in a series, as whoever is asked says."""
    there: set[Uid] = set()
    ordered = sorted(set(wanted))
    for at in range(0, len(ordered), _UIDS_AT_A_TIME):
        part = ordered[at : at + _UIDS_AT_A_TIME]
        keys = Dataset()
        keys.QueryRetrieveLevel = "IMAGE"
        keys.StudyInstanceUID = study
        keys.SeriesInstanceUID = series
        keys.SOPInstanceUID = list(part)
        answers = ask(keys, limit=2 * len(part))
        there |= {Uid(str(a.get("SOPInstanceUID", ""))) for a in answers} & set(part)
    return there


def move(peer: PeerAE, keys: Dataset, destination: AETitle) -> Retrieved:
    """Ask a peer to send what `keys` name to an AE title, and wait until it has.

    Raises
    ------
    NotAccepted, PeerRefused, PeerUnreachable
        As `find`.
    """
    with _opened(peer, MOVE) as (association, context_id, syntax):
        message_id = association.next_message_id()
        command = c_move_rq(message_id=message_id, sop_class_uid=MOVE, destination=destination)
        association.send(context_id, command, _encoded(keys, syntax))
        while True:
            message = _response(association, C_MOVE_RQ, message_id)
            done = _retrieved(peer, message)
            if done is not None:
                return done


def get(
    peer: PeerAE, keys: Dataset, classes: Sequence[Uid], take: Take, *, largest: int
) -> Retrieved:
    """Let a peer send what `keys` name over the association of the question.

    Parameters
    ----------
    peer : PeerAE
    keys : Dataset
    classes : sequence of Uid, at most 63
        Storage SOP classes that may come.
    take : Take
        Where objects go, as their bytes come.
    largest : int
        Most bytes of one object.

    Raises
    ------
    NotAccepted, PeerRefused, PeerUnreachable
        As `find`.
    """
    storage = [Context(c, s) for c in classes for s in _SYNTAXES]
    roles = {c: Roles(scu=False, scp=True) for c in classes}
    with _opened(peer, GET, storage, roles) as (association, context_id, syntax):
        message_id = association.next_message_id()
        association.send(
            context_id, c_get_rq(message_id=message_id, sop_class_uid=GET), _encoded(keys, syntax)
        )
        while True:
            message = association.receive_command(peer.response_timeout_s)
            if number(message.command, 0x0100) == C_STORE_RQ:
                _take_in(association, message, take, largest)
                continue
            if has_data_set(message.command):  # the list of what failed; the counts will do
                deque(association.data_set(message, limit=_LARGEST_ANSWER), maxlen=0)
            _expect(peer, message, C_GET_RQ, message_id)
            done = _retrieved(peer, message)
            if done is not None:
                return done


def _take_in(association: Association, message: Message, take: Take, largest: int) -> None:
    """Pass one object on as it comes, and answer when it is durable."""
    peer = association.peer
    context = association.context_of(message.context_id)
    instance = uid(message.command, 0x1000)
    fits = uid(message.command, 0x0002) == context.sop_class_uid
    if not (fits and instance and has_data_set(message.command)):
        raise PeerUnreachable(f"{peer} sent an object that does not fit its context")
    coming = take(
        sop_class_uid=context.sop_class_uid,
        sop_instance_uid=instance,
        transfer_syntax_uid=context.transfer_syntax_uid,
    )
    try:
        for fragment in association.data_set(message, limit=largest):
            coming.write(fragment)
        status = coming.finish()
    finally:
        coming.discard()
    association.answer(message, status)


class _opened:  # noqa: N801 - reads as the function that it stands for
    """An association for one query/retrieve service; a malformed answer is a broken one."""

    def __init__(
        self,
        peer: PeerAE,
        service: Uid,
        more: Sequence[Context] = (),
        roles: Mapping[Uid, Roles] | None = None,
    ) -> None:
        self._peer = peer
        self._service = service
        self._contexts = [*(Context(service, s) for s in _SYNTAXES), *more]
        self._roles = roles
        self._association: Association | None = None

    def __enter__(self) -> tuple[Association, int, Uid]:
        association = Association.open(self._peer, self._contexts, roles=self._roles)
        context_id = association.context_id(self._service)
        if context_id is None:
            association.release()
            raise NotAccepted(
                f"{self._peer} does not offer {SERVICES[self._service]}",
                hint="set query: false and pull: none for this peer",
            )
        self._association = association
        return association, context_id, association.context_of(context_id).transfer_syntax_uid

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._association is None:
            return
        if error is None or isinstance(error, PeerRefused):
            self._association.release()
            return
        self._association.abort()
        if isinstance(error, MalformedMessage):
            raise PeerUnreachable(f"{self._peer} answered {error}") from error


def _response(association: Association, request: int, message_id: int) -> Message:
    message = association.receive(association.peer.response_timeout_s, limit=_LARGEST_ANSWER)
    _expect(association.peer, message, request, message_id)
    return message


def _expect(peer: PeerAE, message: Message, request: int, message_id: int) -> None:
    field = number(message.command, 0x0100)
    if field != request | RESPONSE or number(message.command, 0x0120) != message_id:
        raise PeerUnreachable(f"{peer} answered a message that was not sent")


def _retrieved(peer: PeerAE, message: Message) -> Retrieved | None:
    """Return how it ended; None while it goes on."""
    status = number(message.command, 0x0900)
    if status in _PENDING:
        return None
    if status not in (_SUCCESS, _WARNING):
        raise PeerRefused(f"{peer} refuses to retrieve (0x{status:04X})")
    return Retrieved(
        completed=count(message.command, 0x1021),
        failed=count(message.command, 0x1022),
        status=status,
    )


def _encoded(keys: Dataset, transfer_syntax_uid: Uid) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    write_dataset(buffer, keys)
    return bytes(buffer.getvalue())


def _decoded(data: bytes, transfer_syntax_uid: Uid) -> Dataset:
    try:
        answer: Dataset = pydicom.filereader.read_dataset(
            DicomBytesIO(data),
            is_implicit_VR=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
            is_little_endian=True,
        )
    except Exception as error:
        raise MalformedMessage("with a match that cannot be read") from error
    return answer
