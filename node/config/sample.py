"""Write the sample ``config.yaml`` from the models: every key, its meaning, and a value to try.

``python -m node.config.sample > config.yaml``. A key that may stay out is written with its
default, or commented out (``#key:`` without a space, prose has one) with an example.
"""

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from node.config.match import DEFAULT_CBCT
from node.config.model import Config
from pipelines.catalog import PIPELINES

_WIDTH: Final = 100
_HEADER: Final = """\
Configuration of an rtnode, made by `python -m node.config.sample`; it works as it is on one
machine. YAML 1.2: quote AE titles, dates, UIDs and everything with : # * & ! or a backslash.
Check it with `rtnode check -c config.yaml`, run it with `rtnode serve -c config.yaml`, then send:
  storescu -nh +sd +r -aet MODALITY -aec RTNODE 127.0.0.1 11112 <folder>
Results appear under rtnode-results. A key that is commented out shows an example."""

_SAMPLE: Final[Mapping[str, Any]] = {
    "node": {"ae_titles": ["RTNODE"], "host": "127.0.0.1", "data_dir": "rtnode-data"},
    "peers": {
        "modality": {
            "ae_title": "MODALITY",
            "receive": True,
            "addresses": ["127.0.0.1", "::1"],
        },
        "tps": {"ae_title": "TPS", "receive": True, "addresses": ["127.0.0.1", "::1"]},
        "pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 4242},
    },
    "folders": {"results": {"path": "rtnode-results"}},
    "recognize": {
        "cbct": [rule.model_dump(mode="json") for rule in DEFAULT_CBCT],
    },
    "routes": [
        {
            "name": "contours",
            "match": {"kind": ["CT"]},
            "pipeline": "autocontour",
            "destinations": ["results"],
        },
        {
            "name": "synthetic-ct",
            "match": {"kind": ["CBCT"]},
            "pipeline": "synthetic_ct",
            "priority": 100,
            "destinations": ["results"],
        },
        {
            "name": "dose-radiomics",
            "match": {"kind": ["RTDOSE"]},
            "pipeline": "dose_radiomics",
            "destinations": ["results"],
        },
        {
            "name": "image-radiomics",
            "enabled": False,
            "match": {"kind": ["RTSTRUCT"]},
            "pipeline": "image_radiomics",
            "destinations": ["results"],
        },
        {
            "name": "less-noise",
            "enabled": False,
            "match": {"kind": ["CT"]},
            "pipeline": "image_quality",
            "destinations": ["results"],
        },
    ],
}
"""A node for one machine; what is not here is written with its default."""


def render() -> str:
    """Return the sample as text."""
    lines = [f"# {line}" for line in _HEADER.splitlines()]
    for name, field in Config.model_fields.items():
        lines.append("")
        lines += _entry(name, field, _SAMPLE.get(name), "", told=True)
    return "\n".join(lines) + "\n"


def _fields(
    model: type[BaseModel], values: Mapping[str, Any], indent: str, *, told: bool
) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name in values or told:
            yield from _entry(name, field, values.get(name), indent, told=told)
        if name == "settings" and "pipeline" in values:
            yield from _settings(str(values["pipeline"]), indent)


def _entry(name: str, field: FieldInfo, value: object, indent: str, *, told: bool) -> Iterator[str]:
    if told:
        yield from _prose(field.description or "", indent)
    model, shape = _section_of(field.annotation)
    if model is None:
        yield from _leaf(name, field, value, indent)
        return
    optional = value is None and shape is not None
    inner: list[str] = []
    given = value if value is not None else _example_of(field, shape)
    if shape is None or shape is UnionType:
        inner += _fields(model, _mapping(given), indent + "  ", told=told)
    elif shape is Mapping:
        for i, (key, item) in enumerate(_mapping(given).items()):
            inner += [f"{indent}  {key}:"]
            inner += _fields(model, item, indent + "    ", told=told and i == 0)
    else:
        for i, item in enumerate(_sequence(given)):
            inner += _item(model, item, indent + "  ", told=told and i == 0)
    lines = [f"{indent}{name}:", *inner]
    yield from (_off(line) if optional else line for line in lines)


def _item(
    model: type[BaseModel], item: Mapping[str, Any], indent: str, *, told: bool
) -> Iterator[str]:
    """Write one item of a list: the dash stands on its own line where prose follows."""
    lines = list(_fields(model, item, indent + "  ", told=told))
    if told:
        yield f"{indent}-"
        yield from lines
    else:
        yield f"{indent}- {lines[0].lstrip()}"
        yield from lines[1:]


def _leaf(name: str, field: FieldInfo, value: object, indent: str) -> Iterator[str]:
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    shown = value if value is not None else default
    if shown is None or shown in ((), {}):
        yield _off(f"{indent}{name}: {_flow(field.examples[0] if field.examples else None)}")
    elif isinstance(shown, Mapping):
        yield f"{indent}{name}:"
        yield from (f"{indent}  {key}: {_flow(below)}" for key, below in shown.items())
    else:
        yield f"{indent}{name}: {_flow(shown)}"


def _settings(pipeline: str, indent: str) -> Iterator[str]:
    """Tell the settings of `pipeline` and their defaults, as prose."""
    model = PIPELINES[pipeline].settings
    if not model.model_fields:
        return
    yield f"{indent}# Settings of {pipeline}, with their defaults:"
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            default = default.model_dump(mode="json")
        lead = f"  {name}: {_flow(default)}"
        yield from _prose(f"{lead} - {field.description or 'see the code'}", indent)


def _section_of(annotation: object) -> tuple[type[BaseModel] | None, object]:
    """Return the model below a field and how it is held: bare (None), `Mapping`, `tuple`...

    ... or `UnionType`, where it may be left out.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType and arguments[-1] is NoneType:
        below = _section_of(arguments[0])[0]
        return below, None if below is None else UnionType
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, None
    if origin is tuple:
        return _section_of(arguments[0])[0], tuple
    if origin is not None and origin is get_origin(Mapping[str, str]):
        return _section_of(arguments[1])[0], Mapping
    return None, None


def _example_of(field: FieldInfo, shape: object) -> object:
    if field.examples:
        return field.examples[0]
    return {} if shape is None else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: object) -> Sequence[Mapping[str, Any]]:
    return value if isinstance(value, Sequence) else []


def _prose(text: str, indent: str) -> Iterator[str]:
    hanging = "    " if text.startswith("  ") else ""
    yield from textwrap.wrap(
        text,
        width=_WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# {hanging}",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _off(line: str) -> str:
    """Return `line` commented out, unless it is prose or is commented out already."""
    bare = line.lstrip()
    if bare.startswith("#"):
        return line
    return f"{line[: len(line) - len(bare)]}#{bare}"


def _flow(value: object) -> str:
    """Return `value` in the flow style that YAML shares with JSON, with bare keys."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, Enum):
        return json.dumps(value.value)
    return json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(render())
