"""A-ASSOCIATE: decoding a request, choosing contexts, encoding the answer (PS3.8 7.1, PS3.7 D).

pynetdicom knows the items of these PDUs and the rules of the choice; here it is kept from ever
seeing a request that would make it raise in the middle. Asynchronous operations are not answered,
which leaves the window at one operation each way (PS3.7 D.3.3.3).
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_as_acceptor

from node.domain import AETitle, Uid
from node.scp.contexts import (
    STORAGE_CLASSES,
    STORAGE_SYNTAXES,
    VERIFICATION,
    VERIFICATION_SYNTAXES,
)
from node.scp.errors import AbortReason, ProtocolError
from node.scp.services import Service
from node.scp.wire import ASSOCIATE_RQ
from node.store.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

MAXIMUM_PDU_LENGTH: Final = 131_072
"""Announced to peers, in bytes; larger brings nothing."""


class Rejection(NamedTuple):
    """An A-ASSOCIATE-RJ: what is sent (PS3.8 table 9-21), and why, for the log."""

    result: int
    source: int
    reason: int
    why: str


CALLING_NOT_RECOGNIZED: Final = Rejection(1, 1, 3, "calling AE title not known from this address")
CERTIFICATE_OF_ANOTHER: Final = Rejection(1, 1, 3, "certificate is not that of the calling AE")
CALLED_NOT_RECOGNIZED: Final = Rejection(1, 1, 7, "called AE title is not ours")
APPLICATION_CONTEXT_NOT_SUPPORTED: Final = Rejection(
    1, 1, 2, "application context is not that of DICOM"
)
PROTOCOL_VERSION_NOT_SUPPORTED: Final = Rejection(1, 2, 2, "protocol version is not 1")
LOCAL_LIMIT_EXCEEDED: Final = Rejection(2, 3, 2, "limit of associations reached")

_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
_REJECT: Final = 0x03
_ACCEPTED: Final = 0x00

_Primitive: TypeAlias = Any
"""An `A_ASSOCIATE` of pynetdicom; the library is not typed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for an association, decoded."""

    calling_ae_title: AETitle
    called_ae_title: AETitle
    maximum_length: int
    """Longest P-DATA body that the peer takes, in bytes; 0 for any."""
    primitive: _Primitive


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A presentation context that was accepted."""

    abstract_syntax: Uid
    transfer_syntax: Uid


class Negotiation:
    """What the receiver offers, and the answers that follow from it.

    Parameters
    ----------
    services : sequence of Service
        Offered beside verification and storage.
    """

    def __init__(self, services: Sequence[Service] = ()) -> None:
        self._supported = [
            _context(VERIFICATION, VERIFICATION_SYNTAXES),
            *(_context(sop_class, STORAGE_SYNTAXES) for sop_class in STORAGE_CLASSES),
            *(_service_context(service) for service in services),
        ]

    def accept(self, request: Request) -> tuple[bytes, dict[int, Context]]:
        """Return the A-ASSOCIATE-AC PDU, and the contexts that it accepts by their ids."""
        asked = request.primitive
        roles = {
            item.sop_class_uid: (item.scu_role, item.scp_role)
            for item in asked.user_information
            if type(item).__name__ == "SCP_SCU_RoleSelectionNegotiation"
        }
        chosen, role_items = negotiate_as_acceptor(
            asked.presentation_context_definition_list, self._supported, roles
        )
        answer = A_ASSOCIATE()
        answer.application_context_name = _APPLICATION_CONTEXT
        answer.calling_ae_title = asked.calling_ae_title
        answer.called_ae_title = asked.called_ae_title
        answer.result, answer.result_source = _ACCEPTED, 1
        answer.presentation_context_definition_results_list = chosen
        answer.user_information = [*_user_information(), *role_items]
        pdu = A_ASSOCIATE_AC()
        pdu.from_primitive(answer)
        accepted = {
            context.context_id: Context(
                abstract_syntax=Uid(str(context.abstract_syntax)),
                transfer_syntax=Uid(str(context.transfer_syntax[0])),
            )
            for context in chosen
            if context.result == _ACCEPTED
        }
        return bytes(pdu.encode()), accepted


def read_request(body: bytes) -> Request:
    """Decode the body of an A-ASSOCIATE-RQ.

    Raises
    ------
    ProtocolError
        It cannot be decoded, or a context has a bad id or lacks a syntax (PS3.8 9.3.2).
    """
    try:
        pdu = A_ASSOCIATE_RQ()
        pdu.decode(struct.pack(">BBL", ASSOCIATE_RQ, 0, len(body)) + body)
        primitive = pdu.to_primitive()
        contexts = primitive.presentation_context_definition_list
        ids = [context.context_id for context in contexts]
        sound = len(set(ids)) == len(ids) > 0 and all(
            context.abstract_syntax and context.transfer_syntax for context in contexts
        )
        request = Request(
            calling_ae_title=_title(primitive.calling_ae_title),
            called_ae_title=_title(primitive.called_ae_title),
            maximum_length=int(primitive.maximum_length_received or 0),
            primitive=primitive,
        )
    except Exception as error:
        raise ProtocolError("the association request cannot be decoded") from error
    if not sound:
        raise ProtocolError(
            "the association request has unusable presentation contexts",
            reason=AbortReason.INVALID_PARAMETER,
        )
    return request


def flaw(request: Request, body: bytes) -> Rejection | None:
    """Return why nobody could accept the request, whoever sent it."""
    (version,) = struct.unpack_from(">H", body)
    if not version & 1:
        return PROTOCOL_VERSION_NOT_SUPPORTED
    if str(request.primitive.application_context_name) != _APPLICATION_CONTEXT:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    return None


def reject(rejection: Rejection) -> bytes:
    """Return an A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return struct.pack(">BxLxBBB", _REJECT, 4, *rejection[:3])


def _context(abstract_syntax: Uid, transfer_syntaxes: Iterable[Uid]) -> PresentationContext:
    return build_context(abstract_syntax, list(transfer_syntaxes))


def _service_context(service: Service) -> PresentationContext:
    context = _context(service.sop_class_uid, service.transfer_syntaxes)
    # as pynetdicom has it, these are the roles of the requestor that an acceptor agrees to
    context.scu_role, context.scp_role = service.we_are_scp, service.we_are_scu
    return context


def _user_information() -> list[Any]:
    length = MaximumLengthNotification()
    length.maximum_length_received = MAXIMUM_PDU_LENGTH
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    return [length, implementation, version]


def _title(text: str) -> AETitle:
    return AETitle(str(text).strip(" \0"))
