"""STOW-RS: results to a DICOMweb server (PS3.18 10.5), streamed file by file.

One request carries a few objects; its length is known beforehand, so no object is ever held in
memory. The answer is per object, with the same reasons as a C-STORE status, so the same table
says what they mean. What may have arrived before is looked up first (QIDO-RS, 10.6).
"""

import http.client
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pydicom

from node.errors import PeerUnreachable
from node.log import event
from node.scu.dicomweb import Server, WebClient
from node.scu.sender import Outcome, Outgoing, Result, verdict

_log = logging.getLogger(__name__)

_BLOCK: Final = 256 * 1024
"""Bytes read from a file at a time."""
_MOST_OBJECTS: Final = 16
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one request; a larger object travels alone. What breaks with a request is not much."""

_STORED: Final = "00081199"
_FAILED: Final = "00081198"
_INSTANCE: Final = "00081155"
_REASON: Final = "00081197"
_WARNING: Final = "00081196"
"""Attributes of the Store Instances Response, as DICOM JSON names them (PS3.18 I.2)."""

_ANSWERED: Final = frozenset({200, 202, 409})
"""HTTP statuses that come with an answer for each object."""
_ONE_OBJECT: Final = frozenset({400, 413, 415})
"""Statuses that may be the fault of an object of the request."""
_NO_ANSWER: Final = frozenset({400, 404, 405, 406, 410, 501})
"""Statuses of a query that say nothing about whether results can be stored."""
_EXPECTED: Final = _ANSWERED | _ONE_OBJECT | {http.client.NO_CONTENT}
_DUPLICATE: Final = 0x0111
"""It holds the SOP Instance UID already, which is made from the content."""


class StowDestination:
    """A DICOMweb server as a destination."""

    def __init__(self, name: str, server: Server) -> None:
        self._name = name
        self._client = WebClient(server)

    @property
    def name(self) -> str:
        """Name in the configuration."""
        return self._name

    def probe(self) -> None:
        """Ask for one study; any answer that is no failure of the server will do."""
        self._query("/studies?limit=1")
        self.close()

    def deliver(self, items: Sequence[Outgoing]) -> Iterator[Result]:
        """Send a few objects in each request; yield what the answer says of each."""
        fresh = []
        for item in items:
            if item.doubtful and self._holds(item):
                yield _found(item)
                continue
            try:
                fresh.append((item, item.path.stat().st_size))
            except OSError as error:
                yield Result(
                    item=item,
                    outcome=Outcome.REFUSED,
                    status=None,
                    reason=f"the stored file cannot be read: {error.strerror}",
                    hint="run `rtnode check`; the data volume may be failing",
                )
        for part in _parts(fresh):
            yield from self._store(part)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _store(self, items: Sequence[tuple[Outgoing, int]]) -> Iterator[Result]:
        boundary = f"rtnode-{secrets.token_hex(16)}"
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"--{boundary}--\r\n".encode()
        length = sum(len(head) + size + 2 for _, size in items) + len(tail)
        headers = {
            "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
            "Content-Length": str(length),
        }
        body = _body([item.path for item, _ in items], [s for _, s in items], head, tail)
        try:
            status, answer = self._client.request("POST", "/studies", headers, body)
        except PeerUnreachable as error:  # blames the first; the others may have arrived as well
            for item, _ in items[1:]:
                yield Result(
                    item=item,
                    outcome=Outcome.RETRY,
                    status=None,
                    reason=str(error),
                    hint=error.advice,
                )
            raise
        self._client.raise_for(status, expected=_EXPECTED)
        if status in _ONE_OBJECT and len(items) > 1:  # find out which: one by one
            for single in items:
                yield from self._store([single])
            return
        said = _answers(answer)
        for item, _ in items:
            yield self._result(item, status, said)

    def _result(self, item: Outgoing, status: int, said: Mapping[str, tuple[bool, int]]) -> Result:
        """Return what became of an object; one that is not named counts if it can be found.

        A status says nothing by itself: whatever stands before the server may answer 200 as well.
        """
        kept, reason = said.get(item.sop_instance_uid, (False, 0))
        if item.sop_instance_uid not in said and status in _ANSWERED and self._holds(item):
            return _found(item)
        if kept:
            outcome = Outcome.SENT_WITH_WARNING if reason else Outcome.SENT
            words = f"stored with a warning (0x{reason:04X})" if reason else "stored"
            return Result(item=item, outcome=outcome, status=reason, reason=words)
        if not reason:
            refused = status in _ONE_OBJECT
            return Result(
                item=item,
                outcome=Outcome.REFUSED if refused else Outcome.RETRY_FEW,
                status=None,
                reason=f"the server does not say that it stored it (HTTP {status})",
                hint="look at the log of the server",
            )
        row = verdict(reason)
        outcome = row.outcome
        if outcome is Outcome.SENT_WITH_WARNING and reason != _DUPLICATE:
            outcome = Outcome.RETRY_FEW  # a warning of what it says that it did not store
        return Result(
            item=item,
            outcome=outcome,
            status=reason,
            reason=f"{row.meaning} (0x{reason:04X}, HTTP {status})",
            hint=row.hint,
        )

    def _holds(self, item: Outgoing) -> bool:
        """Tell whether the server lists an object (QIDO-RS)."""
        try:
            header = pydicom.dcmread(
                item.path,
                force=True,
                stop_before_pixels=True,
                specific_tags=["StudyInstanceUID", "SeriesInstanceUID"],
            )
            study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
        except Exception as error:  # noqa: BLE001 - `_store` meets the same file and says so
            event(_log, "lookup_failed", level=logging.WARNING, error=error, destination=self._name)
            return False
        uid = quote(item.sop_instance_uid)
        status, answer = self._query(
            f"/studies/{quote(study)}/series/{quote(series)}/instances?SOPInstanceUID={uid}"
        )
        try:
            listed = json.loads(answer) if status == http.client.OK and answer else []
            return any(item.sop_instance_uid in i["00080018"]["Value"] for i in listed)
        except (ValueError, TypeError, LookupError, RecursionError):
            return False

    def _query(self, path: str) -> tuple[int, bytes]:
        """Ask; a server that offers no queries, or does not know the study, answers all the same.

        Raises
        ------
        DeliveryError
            It is in trouble, or does not let us in.
        """
        status, answer = self._client.request("GET", path)
        if status in _NO_ANSWER:
            event(_log, "lookup_failed", level=logging.WARNING, error=None, destination=self._name,
                  reason=f"HTTP {status}")  # fmt: skip
        else:
            self._client.raise_for(status, expected=_EXPECTED)
        return status, answer


def _found(item: Outgoing) -> Result:
    return Result(item=item, outcome=Outcome.SENT, status=0, reason="the server holds it already")


def _parts(items: Sequence[tuple[Outgoing, int]]) -> Iterator[list[tuple[Outgoing, int]]]:
    """Split `items`, each with the size of its file in bytes, in their order into requests."""
    part: list[tuple[Outgoing, int]] = []
    for item, size in items:
        full = len(part) >= _MOST_OBJECTS or sum(s for _, s in part) + size > _MOST_BYTES
        if part and full:
            yield part
            part = []
        part.append((item, size))
    if part:
        yield part


def _body(paths: Sequence[Path], sizes: Sequence[int], head: bytes, tail: bytes) -> Iterator[bytes]:
    for path, size in zip(paths, sizes, strict=True):
        yield head
        sent = 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                sent += len(block)
                yield block
        if sent != size:
            raise OSError("the file has another length than it had")
        yield b"\r\n"
    yield tail


def _answers(body: bytes) -> dict[str, tuple[bool, int]]:
    """Return SOP Instance UID -> (stored, reason); empty where nothing can be read."""
    try:
        document = json.loads(body)
        document = document[0] if isinstance(document, list) else document
        said: dict[str, tuple[bool, int]] = {}
        for attribute, reason_of, kept in ((_STORED, _WARNING, True), (_FAILED, _REASON, False)):
            for item in document.get(attribute, {}).get("Value", []):
                reason = item.get(reason_of, {}).get("Value", [0])
                said[str(item[_INSTANCE]["Value"][0])] = (kept, int(reason[0]))
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return {}  # JSON of Python knows Infinity, and any depth
    return said
