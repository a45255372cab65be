"""Write docs/configuration.md from the models: every setting, its type, default, unit and limits.

``python -m node.config.reference > docs/configuration.md``. What goes wrong is not told but tried:
each wrong line of `MISTAKES` is loaded, and what the node says about it is printed.
"""

import ipaddress
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from node.config.load import load
from node.config.match import OPERATORS, Operator
from node.config.model import Config
from node.errors import ConfigError
from pipelines.catalog import PIPELINES

_UNITS: Final = {
    "_s": "s",
    "_mb": "MB",
    "_gb": "GB",
    "_days": "days",
    "_minutes": "min",
    "_hours": "h",
    "_mm": "mm",
    "_gy": "Gy",
    "_hu": "HU",
    "_cc": "cm3",
    "_percent": "%",
}
"""End of a key -> its unit."""
_WORDS: Final[Mapping[object, str]] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    ipaddress.IPv4Network: "address or network",
    ipaddress.IPv6Network: "address or network",
    NoneType: "",
}
_SMALLEST: Final = 'node: {ae_titles: ["RTNODE"], data_dir: data}\n'
MISTAKES: Final = (
    ("a misspelled key", _SMALLEST + "storge: {}\n"),
    ("a key that is missing", "node: {data_dir: data}\n"),
    ("a number as text", _SMALLEST + 'peers: {pacs: {ae_title: "P", host: h, port: "104"}}\n'),
    ("an AE title without quotes", "node: {ae_titles: [0104], data_dir: data}\n"),
    ("an AE title that is too long", 'node: {ae_titles: ["RADIOTHERAPY_NODE"], data_dir: data}\n'),
    ("YAML 1.1 words", _SMALLEST + 'peers: {ct: {ae_title: "C", receive: yes}}\n'),
    ("a value that is none of the choices", _SMALLEST + "receive: {unknown_peers: reject}\n"),
    ("a sender without addresses", _SMALLEST + 'peers: {ct: {ae_title: "C", receive: true}}\n'),
    ("a peer that can do nothing", _SMALLEST + 'peers: {ct: {ae_title: "C"}}\n'),
    ("retrieval without queries",
     _SMALLEST + 'peers: {pacs: {ae_title: "P", host: h, port: 104, pull: move}}\n'),
    ("TLS without our certificate",
     _SMALLEST + 'peers: {pacs: {ae_title: "P", host: h, port: 104, tls: true}}\n'),
    ("two peers with one AE title",
     _SMALLEST + 'peers: {a: {ae_title: "P", host: h, port: 104}, '
     'b: {ae_title: "P", host: i, port: 104}}\n'),
    ("a destination that is not there",
     _SMALLEST + "routes: [{name: r, match: {kind: [CT]}, pipeline: autocontour, "
     "destinations: [pcas]}]\npeers: {pacs: {ae_title: P, host: h, port: 104}}\n"),
    ("a route that would take everything",
     _SMALLEST + "routes: [{name: r, match: {}, pipeline: autocontour, destinations: [f]}]\n"
     "folders: {f: {path: out}}\n"),
    ("a pipeline that is not there",
     _SMALLEST + "routes: [{name: r, match: {kind: [CT]}, pipeline: autocontur, "
     "destinations: [f]}]\nfolders: {f: {path: out}}\n"),
    ("a setting that the pipeline does not know",
     _SMALLEST + "routes: [{name: r, match: {kind: [CT]}, pipeline: autocontour, "
     "settings: {structure: [External]}, destinations: [f]}]\nfolders: {f: {path: out}}\n"),
    ("a keyword that names a patient",
     _SMALLEST + "routes: [{name: r, match: {keywords: {PatientName: {contains: X}}}, "
     "pipeline: autocontour, destinations: [f]}]\nfolders: {f: {path: out}}\n"),
    ("a pattern that could run away",
     _SMALLEST + "routes: [{name: r, match: {keywords: {SeriesDescription: {regex: '(a+)+'}}}, "
     "pipeline: autocontour, destinations: [f]}]\nfolders: {f: {path: out}}\n"),
    ("a web page that others could reach without TLS",
     _SMALLEST + 'web: {listen: "192.0.2.5:8443"}\n'),
    ("a password in a URL",
     'node: {ae_titles: ["RTNODE"], data_dir: data, '
     "database_url: 'postgresql://rtnode:secret@db/rtnode'}\n"),
)  # fmt: skip
"""What people get wrong, and a file that does so."""

_INTRODUCTION: Final = """\
# Configuration
Every setting, printed from the model by `python -m node.config.reference > docs/configuration.md`
(a test compares). [config.yaml](../config.yaml) is a sample to start from; `rtnode check` judges a
file whole, `rtnode config show` prints what takes effect, `rtnode routes test <folder>` says what
the routes would do with a study.

- YAML 1.2. Quote AE titles, dates, UIDs and everything with `: # * & !` or a backslash. A key twice
  is an error.
- Units are part of the key. Nothing is converted: `"104"` is no number, `yes` is a text.
- Secrets stand in files of their own that only the node's user can read; this file names them.
- A relative path starts at the folder of the configuration file.
- `rtnode serve` reads the file once: restart it after a change (`systemctl restart rtnode`);
  senders try again.

*required*: the key must be there. *none*: without the key there is none of it.
"""


def render() -> str:
    """Return the page."""
    seen: dict[type[BaseModel], str] = {}
    parts = [_INTRODUCTION, *_sections("", Config, seen), *_operators()]
    for spec in PIPELINES.values():
        parts += _sections(f"settings of {spec.name}", spec.settings, seen)
    return "\n".join([*parts, *_mistakes()])


def _sections(path: str, model: type[BaseModel], seen: dict[type[BaseModel], str]) -> Iterator[str]:
    """Yield a section for `model` and one for each model below it, each model once."""
    if model in seen:
        yield f"## `{path}`\nAs `{seen[model]}`.\n"
        return
    seen[model] = path
    below = {name: _below(field.annotation) for name, field in model.model_fields.items()}
    own = {n: f for n, f in model.model_fields.items() if not path or not _is_section(f, below[n])}
    if path and own:
        yield _section(path, model, own)
    for name, (models, step) in below.items():
        for one in models:
            kind = f" ({one.__name__})" if len(models) > 1 else ""
            yield from _sections(f"{path}.{name}{step}{kind}".lstrip("."), one, seen)


def _is_section(field: FieldInfo, below: tuple[list[type[BaseModel]], str]) -> bool:
    """Tell whether a field is told by its own section alone."""
    return bool(below[0]) and not field.examples and not below[1]


def _section(path: str, model: type[BaseModel], fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        (f"`{name}`", _type(field), _default(field), _limits(name, field), _told(field))
        for name, field in fields.items()
    ]
    head = ("key", "type", "default", "unit, allowed", "meaning")
    words = (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    return f"## `{path}`\n{words}\n\n{_table(head, rows)}"


def _operators() -> Iterator[str]:
    rows = [
        (f"`{word}`", _type(field), _told(field), f"`{word}: {json.dumps(example)}`")
        for word, field in ((word, op.model_fields[word]) for word, op in OPERATORS.items())
        for example in (field.examples or ())[:1]
    ]  # fmt: skip
    yield (
        "## Conditions of `match.keywords` and `recognize.cbct`\n"
        "One operator for one DICOM keyword; all keywords must hold. A keyword that identifies a"
        " patient or a person is refused.\n\n"
        + _table(("operator", "operand", "holds when", "example"), rows)
    )


def _mistakes() -> Iterator[str]:
    rows = [(what, f"`{_said(text)}`") for what, text in MISTAKES]
    yield (
        "## What goes wrong, and what is said\n"
        "`rtnode check` and every command that reads the file name each mistake with file and line,"
        " and exit with code 2; nothing is started.\n\n" + _table(("mistake", "message"), rows)
    )


def _said(text: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            load(path)
        except ConfigError as error:
            return error.problems[0].replace(f"{folder}/", "")
    raise AssertionError(f"this is no mistake any more: {text}")


def _below(annotation: object) -> tuple[list[type[BaseModel]], str]:
    """Return the models below a field, and how its path goes on; conditions are told apart."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ([] if issubclass(annotation, Operator) else [annotation]), ""
    if origin is Annotated:
        return _below(arguments[0])
    if origin in (UnionType, Union):
        return [model for argument in arguments for model in _below(argument)[0]], ""
    if origin is tuple:
        return _below(arguments[0])[0], "[]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _below(arguments[1])[0], ".*"
    return [], ""


def _type(field: FieldInfo) -> str:
    if any(getattr(getattr(m, "func", None), "__name__", "") == "_name" for m in field.metadata):
        return "name"
    return _word(field.annotation)


def _word(annotation: Any) -> str:  # noqa: ANN401 - annotations have no common type
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Annotated:
        return _word(arguments[0])
    if origin in (UnionType, Union):
        return " or ".join(dict.fromkeys(w for w in map(_word, arguments) if w))
    if origin is Literal:
        return "choice"
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_word(arguments[0])}"
        return f"[{', '.join(map(_word, arguments))}]"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "keys with values"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "choice"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    name = str(getattr(annotation, "__name__", annotation))
    return {"AETitle": "AE title"}.get(name, "value")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(_plain(value), ensure_ascii=False)
    return f"`{text}`"


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _limits(name: str, field: FieldInfo) -> str:
    unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
    signs = (("gt", "> "), ("ge", "≥ "), ("lt", "< "), ("le", "≤ "))
    bounds = [
        f"{sign}{getattr(m, key):g}"
        for key, sign in signs
        for m in field.metadata
        if isinstance(getattr(m, key, None), int | float)
    ]
    return "; ".join(filter(None, (unit, " and ".join(bounds), _choices(field.annotation))))


def _choices(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is not None:
        return next(filter(None, map(_choices, arguments)), "")
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    return ""


def _told(field: FieldInfo) -> str:
    return field.description or ""


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


if __name__ == "__main__":
    sys.stdout.write(render())
