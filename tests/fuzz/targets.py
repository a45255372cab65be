"""Every parser of ours that meets bytes from outside, with a sound input and what it may raise.

One table for both ways of looking for holes: `tests/faults/test_fuzz.py` replays the corpus and
damages sound inputs by a seed in each run of CI; `tests/fuzz/hunt.py` lets atheris follow coverage
for as long as one likes (`make fuzz`). Inputs are made by our own code; nobody's data is in them.
"""

import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydicom.dataset import Dataset

from models.pack import MANIFEST, PACKS, PackRefused, load_pack
from node.config.load import load
from node.domain import Uid
from node.errors import CannotUnderstand, ConfigError, PeerUnreachable
from node.scp.commands import read_command as read_request_command
from node.scp.errors import ProtocolError
from node.scp.negotiation import read_request
from node.scu import dimse
from node.scu.bringing import named
from node.scu.multipart import Parts
from node.scu.query import _decoded as read_match
from node.scu.stow import _answers as read_stow_answer
from node.scu.transaction import encode_question, encode_report, read_question, read_report
from node.store.commitments import InstanceName
from node.store.header import parse_header, parse_stream
from node.store.part10 import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    prefix,
    received,
    split,
)
from node.store.receipt import Receipt
from node.web.users import UsersUnusable
from node.web.users import _read as read_users
from pipelines.api import PipelineError
from pipelines.autocontour.eclipse_template import TemplateRefused, import_template
from pipelines.autocontour.settings import AutocontourSettings
from pipelines.dicom.header import copy_identity, new_file, save
from pipelines.dicom.read import read_dataset
from pipelines.dicom.registration import rigid_between
from pipelines.dicom.rtdose import read_dose
from pipelines.dicom.rtstruct import read_structure_set
from pipelines.dicom.sr import (
    Coded,
    Group,
    Measurement,
    Reference,
    Report,
    fill,
    read_back,
    sop_class_uid,
)
from pipelines.dicom.volume import read_volume
from pipelines.dose_radiomics.settings import DoseRadiomicsSettings
from pipelines.geometry.expressions import ExpressionError, parse
from tests.factories import ct_series, reg, rtdose, rtstruct
from tests.fuzz.conversation import begun, converse, exchange
from tests.store_kit import CT, ct, encode, part10, source, structure_set
from tests.wire_kit import associate_request

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
"""One folder a target: what was ever a finding, and inputs that reach far into a parser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parser and what is known of it."""

    sound: Callable[[Path], bytes]
    """Makes an input that is taken; gets a folder to work in."""
    run: Callable[[bytes, Path], object]
    errors: tuple[type[Exception], ...]
    """What it promises to raise, and nothing else."""
    cost: int = 1
    """How many executions of the cheapest target one of this takes."""

    def corpus(self, name: str) -> list[Path]:
        """Return the inputs that are kept."""
        return sorted((CORPUS / name.replace(" ", "-")).glob("*"))


def response() -> bytes:
    """Return the command set of an honest answer to a C-STORE."""
    return b"".join(
        struct.pack("<HHL", 0, element, len(value)) + value
        for element, value in (
            (0x0100, struct.pack("<H", 0x8001)),
            (0x0120, struct.pack("<H", 1)),
            (0x0800, struct.pack("<H", 0x0101)),
            (0x0900, struct.pack("<H", 0)),
        )
    )


def deflated(plain: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(plain) + packer.flush()


def saved(build: Callable[[], Dataset]) -> Callable[[Path], bytes]:
    """Return what writes a data set as a file, without its preamble's worth of zeros."""

    def make(folder: Path) -> bytes:
        path = folder / "seed.dcm"
        build().save_as(path, enforce_file_format=True)
        return path.read_bytes()

    return make


def reading(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, folder: Path) -> object:
        path = folder / "fuzzed"
        path.write_bytes(data)
        return read(path)

    return run


def header(syntax: str) -> Callable[[bytes, Path], object]:
    return lambda data, _: parse_header(data, syntax)


def model(kind: type[BaseModel]) -> Callable[[bytes, Path], object]:
    return lambda data, _: kind.model_validate_json(data)


def transaction(syntax: str) -> tuple[bytes, bytes]:
    """Return a question for storage commitment and its report."""
    name = InstanceName(sop_class_uid=Uid(CT), sop_instance_uid=Uid("1.2.3"))
    asked = encode_question(Uid("1.2.9"), [name], Uid(syntax))
    return asked, encode_report(Uid("1.2.9"), [name], [(name, 0x0112)], Uid(syntax))


def match() -> bytes:
    """Return what a peer says that it holds."""
    ds = Dataset()
    ds.QueryRetrieveLevel = "IMAGE"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID = "1.2.3"
    return encode(ds)


def stow_answer() -> bytes:
    item = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}, "00081197": {"vr": "US", "Value": [272]}}
    return json.dumps(
        {"00081199": {"vr": "SQ", "Value": [item]}, "00081198": {"vr": "SQ", "Value": [item]}}
    ).encode()


def arrival() -> bytes:
    """Return a file as it was received, with its receipt."""
    told = Receipt(
        source=source(), received_at=datetime(2026, 1, 2, tzinfo=UTC), sha256="0" * 64, size=0
    ).encode()
    head = prefix(
        sop_class_uid=CT, sop_instance_uid="1.2.3", transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        receipt=told,
    )  # fmt: skip
    return head + encode(ct())


def multipart(data: bytes) -> list[bytes]:
    """Return the parts of a body, each whole."""
    parts = Parts(BytesIO(data), b"b", timeout_s=5.0, largest=1 << 20)
    return [b"".join(bytes(piece) for piece in part) for part in parts]


def eclipse() -> bytes:
    return (
        b'<?xml version="1.0"?><StructureTemplate><Structures>'
        b'<Structure ID="Lung_L"><Identification><VolumeType>Organ</VolumeType></Identification>'
        b"<ColorAndStyle>RGB 0 255 0</ColorAndStyle></Structure>"
        b'<Structure ID="Body"><VolumeType>Body</VolumeType></Structure>'
        b"</Structures></StructureTemplate>"
    )


def contour_settings() -> bytes:
    return json.dumps(
        {
            "template": [
                {"structure": "SpinalCanal", "color": "#ffcc00"},
                {"expression": "(SpinalCanal + 5mm) - Lungs", "name": "Cord_PRV", "largest": True},
            ]
        }
    ).encode()


def dose_settings() -> bytes:
    return json.dumps(
        {
            "derived": ["Lungs - GTV", "D>=20Gy & Lung_L"],
            "geud_a": [-10.0],
            "metrics_by_roi": [{"rois": ["PTV*", "/^CTV/"], "metrics": ["V95%", "D0.03cc"]}],
        }
    ).encode()


def users() -> bytes:
    entry = {"role": "operator", "hash": "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAA"}
    return json.dumps({"users": {"anna": entry}}).encode()


def manifest() -> bytes:
    """Return the manifest of a pack without any file."""
    told = json.loads((PACKS / "headneck-openkbp" / MANIFEST).read_bytes())
    return json.dumps(told | {"files": []}).encode()


def pack(data: bytes, folder: Path) -> object:
    (folder / MANIFEST).write_bytes(data)
    return load_pack(folder)


def image(data: bytes, folder: Path) -> object:
    """Read a volume of two slices, one of which is sound."""
    (folder / "other.dcm").write_bytes(data)
    other = folder / "sound.dcm"
    if not other.exists():
        ct_series()[1].save_as(other, enforce_file_format=True)
    return read_volume([folder / "other.dcm", other], check_scale=False)


def whole_or_cut(data: bytes, syntax: str) -> object:
    """Read a data set as it is read from a file while it arrives."""
    return parse_stream(BytesIO(data), len(data), syntax)


def report(folder: Path) -> bytes:
    """Return a measurement report of one value."""
    place = Reference(
        sop_class_uid=CT, sop_instance_uid="1.2.3", series_instance_uid="1.2.4",
        study_instance_uid="1.2.5",
    )  # fmt: skip
    coded = Coded("113011", "DCM", "Mean")
    gray = Coded("Gy", "UCUM", "Gy")
    group = Group(
        tracking_id="GTV", tracking_uid="1.2.6", finding=coded, site=None, roi_number=1,
        region=place, source=place, parameters=("bin 1 Gy",),
        measurements=(Measurement(concept=coded, value=1.5, unit=gray),),
    )  # fmt: skip
    content = Report(
        groups=(group,), evidence=(place,), device_uid="1.2.7", device_name="node",
        manufacturer="rtnode", model="rtnode", algorithm="fuzz", algorithm_version="1",
    )  # fmt: skip
    target = new_file(sop_class_uid(content), "1.2.8", "SR")
    copy_identity(ct(), target)
    target.SeriesInstanceUID = "1.2.9"
    fill(target, content, ("20261121", "010000"))
    path = folder / "seed.dcm"
    save(target, path)
    return path.read_bytes()


UNDERSTAND = (CannotUnderstand,)
PIPELINE = (PipelineError,)

TARGETS: dict[str, Target] = {
    # -- what a peer sends --
    "conversation": Target(
        sound=lambda _: begun(), run=lambda data, _: converse(data), errors=(), cost=8
    ),
    "messages": Target(
        sound=lambda _: exchange(encode(ct())),
        run=lambda data, _: converse(associate_request() + data), errors=(), cost=8,
    ),
    "association request": Target(
        sound=lambda _: associate_request()[6:], run=lambda data, _: read_request(data),
        errors=(ProtocolError,), cost=2,
    ),
    "command of a peer": Target(
        sound=lambda _: dimse.c_store_rq(
            message_id=1, sop_class_uid=CT, sop_instance_uid="1.2.3"
        ),
        run=lambda data, _: read_request_command(data), errors=(ProtocolError,),
    ),
    "response of a peer": Target(
        sound=lambda _: response(),
        run=lambda data, _: dimse.read_response(
            dimse.read_command(data), request=dimse.C_STORE_RQ, message_id=1
        ),
        errors=(dimse.MalformedMessage,),
    ),
    "fragments": Target(
        sound=lambda _: b"\0\0\0\x06\x01\x03abcd" * 4,
        run=lambda data, _: dimse.fragments(data), errors=(dimse.MalformedMessage,),
    ),
    "commitment question": Target(
        sound=lambda _: transaction(EXPLICIT_VR_LITTLE_ENDIAN)[0],
        run=lambda data, _: read_question(data, Uid(EXPLICIT_VR_LITTLE_ENDIAN)),
        errors=UNDERSTAND,
    ),
    "commitment report": Target(
        sound=lambda _: transaction(IMPLICIT_VR_LITTLE_ENDIAN)[1],
        run=lambda data, _: read_report(data, Uid(IMPLICIT_VR_LITTLE_ENDIAN)),
        errors=UNDERSTAND,
    ),
    "match": Target(
        sound=lambda _: match(),
        run=lambda data, _: read_match(data, Uid(EXPLICIT_VR_LITTLE_ENDIAN)),
        errors=(dimse.MalformedMessage,),
    ),
    "stow answer": Target(
        sound=lambda _: stow_answer(), run=lambda data, _: read_stow_answer(data), errors=()
    ),
    "multipart": Target(
        sound=lambda _: b"--b\r\nContent-Type: x/y\r\n\r\nabc\r\n--b\r\n\r\nd\r\n--b--",
        run=lambda data, _: multipart(data), errors=(PeerUnreachable,),
    ),
    "names in front": Target(
        sound=lambda _: encode(ct()),
        run=lambda data, _: named(data, Uid(EXPLICIT_VR_LITTLE_ENDIAN)), errors=UNDERSTAND,
    ),
    # -- objects at the door --
    "header explicit": Target(
        sound=lambda _: encode(ct()), run=header(EXPLICIT_VR_LITTLE_ENDIAN), errors=UNDERSTAND
    ),
    "header implicit": Target(
        sound=lambda _: encode(ct(), implicit=True), run=header(IMPLICIT_VR_LITTLE_ENDIAN),
        errors=UNDERSTAND,
    ),
    "header big": Target(
        sound=lambda _: encode(ct(), little=False), run=header(EXPLICIT_VR_BIG_ENDIAN),
        errors=UNDERSTAND,
    ),
    "header deflated": Target(
        sound=lambda _: deflated(encode(ct())), run=header(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        errors=UNDERSTAND,
    ),
    "header inflated": Target(  # damaged before it is deflated: what a hostile sender does
        sound=lambda _: encode(structure_set(["1.2.3", "1.2.4"])),
        run=lambda data, _: whole_or_cut(deflated(data), DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        errors=UNDERSTAND,
    ),
    "header streamed": Target(
        sound=lambda _: encode(ct()),
        run=lambda data, _: whole_or_cut(data, EXPLICIT_VR_LITTLE_ENDIAN), errors=UNDERSTAND,
    ),
    "references": Target(
        sound=lambda _: encode(structure_set(["1.2.3", "1.2.4"])),
        run=header(EXPLICIT_VR_LITTLE_ENDIAN), errors=UNDERSTAND,
    ),
    "part 10": Target(
        sound=lambda _: part10(ct()), run=lambda data, _: split(data), errors=UNDERSTAND
    ),
    "receipt": Target(  # what a start finds of an arrival that the last node did not finish
        sound=lambda _: arrival(), run=lambda data, _: received(data), errors=()
    ),
    # -- objects in a pipeline --
    "structure set": Target(
        sound=saved(rtstruct), run=reading(read_structure_set), errors=PIPELINE, cost=6
    ),
    "dose": Target(sound=saved(rtdose), run=reading(read_dose), errors=PIPELINE, cost=6),
    "image": Target(
        sound=saved(lambda: ct_series()[0]), run=image, errors=PIPELINE, cost=6,
    ),
    "registration": Target(
        sound=saved(reg),
        run=reading(lambda path: rigid_between([read_dataset(path)], "1.2", "1.3")),
        errors=PIPELINE, cost=4,
    ),
    "measurement report": Target(
        sound=report,
        run=reading(lambda path: list(read_back(read_dataset(path)))),
        errors=(ValueError, PipelineError), cost=4,
    ),
    # -- what a person writes or installs --
    "configuration": Target(
        sound=lambda _: (ROOT / "config.yaml").read_bytes(), run=reading(load),
        errors=(ConfigError,), cost=20,
    ),
    "expression": Target(
        sound=lambda _: b"(PTV + 20mm) - PTV | not /^GTV/i & 'a b' & 5Gy<=D<20Gy",
        run=lambda data, _: parse(data.decode("utf-8", "surrogateescape")),
        errors=(ExpressionError,),
    ),
    "contour settings": Target(
        sound=lambda _: contour_settings(), run=model(AutocontourSettings),
        errors=(ValidationError,), cost=2,
    ),
    "dose settings": Target(
        sound=lambda _: dose_settings(), run=model(DoseRadiomicsSettings),
        errors=(ValidationError,), cost=2,
    ),
    "eclipse template": Target(
        sound=lambda _: eclipse(), run=reading(import_template), errors=(TemplateRefused,), cost=2
    ),
    "pack manifest": Target(
        sound=lambda _: manifest(), run=pack, errors=(PackRefused,), cost=2,
    ),
    "users": Target(
        sound=lambda _: users(), run=reading(read_users), errors=(UsersUnusable,)
    ),
}  # fmt: skip
