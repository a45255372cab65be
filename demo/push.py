"""Send DICOM files to the node as a device would: over an association, with an AE title of its own.

The data set goes out byte for byte as it lies in the file, so what arrives is what the file
holds, odd values included.
"""

import io
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, Association, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import split_dataset

MAXIMUM_CONTEXTS: Final = 120
"""Presentation contexts proposed at one time; the standard allows 128."""
MAXIMUM_PDU: Final = 131072
RESPONSE_TIMEOUT_S: Final = 120.0
NO_ASSOCIATION: Final = "no association"
NO_RESPONSE: Final = "no response"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where to send, and as whom."""

    host: str
    port: int
    called: str
    calling: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A DICOM file, ready to be sent."""

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str
    offset: int
    """Bytes before the data set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one file."""

    path: Path
    sop_instance: str
    status: int | None
    """C-STORE status, or None where none came."""
    note: str = ""
    at: float = 0.0
    """When the response came, `time.monotonic`."""


def read_items(paths: Iterable[Path]) -> tuple[list[Item], list[Sent]]:
    """Return the files that are DICOM objects, and those that cannot be sent with the reason."""
    items, rest = [], []
    for path in paths:
        try:
            with warnings.catch_warnings(action="ignore"):  # odd values are the node's business
                item = _item(path)
        except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError, EOFError):
            rest.append(Sent(path=path, sop_instance="", status=None, note="not a DICOM object"))
            continue
        if item.sop_class and item.sop_instance:
            items.append(item)
        else:
            note = "no SOP class or instance UID"
            rest.append(Sent(path=path, sop_instance="", status=None, note=note))
    return items, rest


def push(
    paths: Iterable[Path], peer: Peer, *, progress: Callable[[Sent], None] = lambda _: None
) -> list[Sent]:
    """Send all files in this order and return what became of each.

    One association as long as it lives; a new one after a break, at most once an object.
    """
    items, done = read_items(paths)
    for batch in _batches(items):
        for sent in _push_batch(batch, peer):
            done.append(sent)
            progress(sent)
    return done


def echo(peer: Peer, timeout_s: float = 3.0) -> bool:
    """Tell whether the node answers a C-ECHO."""
    ae = _ae(peer)
    ae.connection_timeout = timeout_s
    ae.add_requested_context("1.2.840.10008.1.1")
    assoc = ae.associate(peer.host, peer.port, ae_title=peer.called)
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo()
    assoc.release()
    return "Status" in status and status.Status == 0


def _item(path: Path) -> Item:
    try:
        meta, offset = split_dataset(path)
        syntax = str(meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError):
        return _bare_item(path)
    names = pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    return Item(
        path=path,
        sop_class=str(names.get("SOPClassUID") or meta.MediaStorageSOPClassUID),
        sop_instance=str(names.get("SOPInstanceUID") or meta.MediaStorageSOPInstanceUID),
        transfer_syntax=syntax,
        offset=offset,
    )


def _bare_item(path: Path) -> Item:
    """Return a file without file meta information: the syntax is what the bytes look like."""
    names = pydicom.dcmread(path, force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
    implicit, _ = names.original_encoding
    return Item(
        path=path,
        sop_class=str(names.SOPClassUID),
        sop_instance=str(names.SOPInstanceUID),
        transfer_syntax=ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian,
        offset=132 if names.preamble else 0,
    )


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Split so that no batch needs more presentation contexts than fit an association."""
    batch: list[Item] = []
    contexts: set[tuple[str, str]] = set()
    for item in items:
        context = (item.sop_class, item.transfer_syntax)
        if context not in contexts and len(contexts) == MAXIMUM_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(item)
        contexts.add(context)
    if batch:
        yield batch


def _push_batch(batch: list[Item], peer: Peer) -> Iterator[Sent]:
    ae = _ae(peer)
    for sop_class, syntax in dict.fromkeys((i.sop_class, i.transfer_syntax) for i in batch):
        ae.add_requested_context(sop_class, syntax)
    assoc = _associate(ae, peer)
    for item in batch:
        sent = _store(assoc, item)
        if sent.status is None and not assoc.is_established:
            assoc = _associate(ae, peer)
            sent = _store(assoc, item)
        yield sent
    if assoc.is_established:
        assoc.release()


def _store(assoc: Association, item: Item) -> Sent:
    """Send one object and wait for its status."""
    if not assoc.is_established:
        return _unsent(item, NO_ASSOCIATION)
    context = next(
        (
            c.context_id
            for c in assoc.accepted_contexts
            if c.abstract_syntax == item.sop_class and c.transfer_syntax == [item.transfer_syntax]
        ),
        None,
    )
    if context is None:
        return _unsent(item, "SOP class or transfer syntax not accepted")
    request = C_STORE()
    request.MessageID = 1
    request.Priority = 2
    try:
        request.AffectedSOPClassUID = item.sop_class
        request.AffectedSOPInstanceUID = item.sop_instance
    except (ValueError, TypeError):
        return _unsent(item, "UID that the protocol cannot carry")
    with item.path.open("rb") as file:
        file.seek(item.offset)
        request.DataSet = io.BytesIO(file.read())
    assoc.dimse.send_msg(request, context)
    _, response = assoc.dimse.get_msg(block=True)
    if response is None or not isinstance(response, C_STORE) or response.Status is None:
        return _unsent(item, NO_RESPONSE)
    return Sent(
        path=item.path,
        sop_instance=item.sop_instance,
        status=int(response.Status),
        note=str(response.ErrorComment or ""),
        at=time.monotonic(),
    )


def _unsent(item: Item, note: str) -> Sent:
    return Sent(path=item.path, sop_instance=item.sop_instance, status=None, note=note)


def _ae(peer: Peer) -> AE:
    ae = AE(ae_title=peer.calling)
    ae.maximum_pdu_size = MAXIMUM_PDU
    ae.dimse_timeout = RESPONSE_TIMEOUT_S
    ae.acse_timeout = ae.connection_timeout = 30.0
    return ae


def _associate(ae: AE, peer: Peer) -> Association:
    return ae.associate(
        peer.host, peer.port, ae_title=peer.called, evt_handlers=[(evt.EVT_CONN_OPEN, _guard)]
    )


def _guard(event: evt.Event) -> None:
    """Let no response be lost.

    The library's reactor polls for requests of the peer without blocking and, pre-empted at the
    wrong moment, takes the response that a sender waits for. A sender receives no requests.
    """
    take = event.assoc.dimse.get_msg

    def get_msg(block: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 (the library's signature)
        return take(block=True) if block else (None, None)

    event.assoc.dimse.get_msg = get_msg
