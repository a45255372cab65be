"""A DICOMweb server to fetch from: QIDO-RS finds (PS3.18 10.6), WADO-RS brings (10.4).

Answers are read as what they are, claims of a server: a match is used for the keys that were
asked, and nothing else of it is looked at. Objects come in as those of a C-GET do
(`node.scu.bringing`): by the same door, piece by piece, and only what was asked for.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from pydicom.dataset import Dataset

from node.domain import AETitle, Door, Uid
from node.errors import CannotUnderstand, PeerRefused, PeerUnreachable
from node.scu.bringing import HEAD, Bringing, Coming, named
from node.scu.dicomweb import WebClient
from node.scu.multipart import Parts, boundary_of
from node.scu.query import Retrieved
from node.store import part10

_DICOM: Final = 'multipart/related; type="application/dicom"'
_FOUND: Final = 200
_NOTHING: Final = frozenset({204, 404})
"""Nothing matches, or the study is not known."""
_NO_SERVICE: Final = frozenset({400, 405, 406, 410, 415, 501})
_EXPECTED: Final = frozenset({_FOUND}) | _NOTHING | _NO_SERVICE
_PATHS: Final[Mapping[str, str]] = {
    "STUDY": "/studies",
    "SERIES": "/studies/{study}/series",
    "IMAGE": "/studies/{study}/series/{series}/instances",
}
"""QueryRetrieveLevel -> resource."""
_IN_PATH: Final = {
    "STUDY": frozenset({"QueryRetrieveLevel"}),
    "SERIES": frozenset({"QueryRetrieveLevel", "StudyInstanceUID"}),
    "IMAGE": frozenset({"QueryRetrieveLevel", "StudyInstanceUID", "SeriesInstanceUID"}),
}
_SYNTAXES: Final = frozenset({part10.EXPLICIT_VR_LITTLE_ENDIAN, part10.IMPLICIT_VR_LITTLE_ENDIAN})
_META: Final = 64 * 1024
"""Bytes that the meta information of a file may have."""
_MOST_PARTS: Final = 20_000
_MOST_REFUSED: Final = 100
"""Objects that nobody asked for, before the answer is cut."""
_CANNOT_UNDERSTAND: Final = 0xC000


@dataclass(frozen=True, slots=True, kw_only=True)
class WebArchive:
    """A DICOMweb server."""

    name: str
    client: WebClient
    pause_s: float
    door: Door
    title: AETitle
    """Ours, as which its objects count as called."""
    largest: int
    """Most bytes of one object."""

    def find(self, keys: Dataset, *, limit: int) -> list[Dataset]:
        """Ask by QIDO-RS.

        Raises
        ------
        DeliveryError
            It cannot be asked, or answers what is no list of matches.
        """
        instances = keys.get("SOPInstanceUID")
        if isinstance(instances, str) or not instances:
            return self._matches(keys, limit)
        found: list[Dataset] = []
        for uid in instances:  # servers differ in how they take a list
            one = copy.copy(keys)
            one.SOPInstanceUID = uid
            found += self._matches(one, limit)
        return found[:limit]

    def retrieve(self, keys: Dataset) -> Retrieved:
        """Fetch by WADO-RS what `keys` name: a series, or instances of it.

        Raises
        ------
        DeliveryError
            It cannot be asked, does not have it, or its answer broke off.
        """
        with Bringing(
            self.door,
            keys,
            name=self.name,
            calling=AETitle(self.name.upper()[:16]),
            called=self.title,
            address=self.client.server.host,
        ) as bringing:
            for path in _objects(keys):
                self._fetch(path, bringing)
            bringing.whole = bringing.received > 0
        return Retrieved(completed=bringing.received, failed=bringing.refused, status=0)

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _matches(self, keys: Dataset, limit: int) -> list[Dataset]:
        status, content = self.client.request("GET", _query(keys, limit))
        self.client.raise_for(status, expected=_EXPECTED)
        if status in _NOTHING:
            return []
        if status != _FOUND:
            raise PeerRefused(f"{self.client.server} refuses the query (HTTP {status})")
        return _read_matches(content, keys)[:limit]

    def _fetch(self, path: str, bringing: Bringing) -> None:
        server = self.client.server
        with self.client.answer("GET", path, {"Accept": _DICOM}) as answer:
            self.client.raise_for(answer.status, expected=_EXPECTED)
            if answer.status != _FOUND:
                raise PeerRefused(f"{server} does not give what it listed (HTTP {answer.status})")
            boundary = boundary_of(answer.headers.get("Content-Type", ""))
            if boundary is None:
                raise PeerUnreachable(f"{server} answers something else than DICOM objects")
            parts = Parts(
                answer, boundary, timeout_s=server.timeout_s, largest=self.largest + _META
            )
            for number, part in enumerate(parts):
                if number >= _MOST_PARTS or bringing.refused > _MOST_REFUSED:
                    raise PeerUnreachable(f"{server} sends what nobody asked for")
                _take_in(part, bringing)


def _take_in(part: Iterator[memoryview], bringing: Bringing) -> None:
    """Pass one part, a DICOM file, on as it comes."""
    head = bytearray()
    for piece in part:
        head += piece
        if len(head) >= HEAD + _META:
            break
    try:
        coming, start = _begun(head, bringing)
    except CannotUnderstand:
        bringing.note(_CANNOT_UNDERSTAND)
        return
    try:
        coming.write(memoryview(bytes(head))[start:])
        for piece in part:
            coming.write(piece)
        coming.finish()
    finally:
        coming.discard()


def _begun(head: bytearray, bringing: Bringing) -> tuple[Coming, int]:
    """Return where a file goes, and the offset of its data set.

    Raises
    ------
    CannotUnderstand
        It is no DICOM file, compressed, or does not say what it is.
    """
    content = part10.split(bytes(head))
    if content.transfer_syntax_uid not in _SYNTAXES:
        raise CannotUnderstand("compressed, or in a byte order that nobody uses")
    syntax = Uid(content.transfer_syntax_uid)
    names = named(bytes(content.data), syntax)
    coming = bringing.take(
        sop_class_uid=names.sop_class_uid,
        sop_instance_uid=names.sop_instance_uid,
        transfer_syntax_uid=syntax,
    )
    return coming, len(head) - len(content.data)


def _query(keys: Dataset, limit: int) -> str:
    """Return path and query of a QIDO-RS request: values are matched, empty keys are asked for."""
    level = str(keys.QueryRetrieveLevel)
    path = _PATHS[level].format(
        study=quote(str(keys.get("StudyInstanceUID", "")), safe=""),
        series=quote(str(keys.get("SeriesInstanceUID", "")), safe=""),
    )
    wanted = [(e.keyword, str(e.value or "")) for e in keys if e.keyword not in _IN_PATH[level]]
    pairs = [(keyword, value) for keyword, value in wanted if value]
    pairs += [("includefield", keyword) for keyword, value in wanted if not value]
    return f"{path}?{urlencode([*pairs, ('limit', str(limit))], quote_via=quote)}"


def _objects(keys: Dataset) -> Sequence[str]:
    """Return the paths of what `keys` name."""
    series = (
        f"/studies/{quote(str(keys.StudyInstanceUID), safe='')}"
        f"/series/{quote(str(keys.SeriesInstanceUID), safe='')}"
    )
    instances = keys.get("SOPInstanceUID")
    if not instances:
        return [series]
    uids = [instances] if isinstance(instances, str) else list(instances)
    return [f"{series}/instances/{quote(str(uid), safe='')}" for uid in uids]


def _read_matches(content: bytes, keys: Dataset) -> list[Dataset]:
    """Return the matches of a DICOM JSON document, with the elements of `keys` alone.

    Raises
    ------
    PeerUnreachable
        It is no such document.
    """
    try:
        document = json.loads(content)
        return [_match(item, keys) for item in document]
    except Exception as error:
        raise PeerUnreachable("a query was answered with no list of matches") from error


def _match(item: Mapping[str, Mapping[str, Sequence[object]]], keys: Dataset) -> Dataset:
    match = Dataset()
    for element in keys:
        values = item.get(f"{element.tag:08X}", {}).get("Value", [])
        if values and isinstance(values[0], str):
            setattr(match, element.keyword, values[0])
    return match
