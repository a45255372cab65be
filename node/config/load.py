"""Load the configuration whole, or say everything that is wrong with it at once.

``config.yaml:6: peers.tps.prot: not a known key; did you mean 'port'?``

The text becomes plain JSON values (`node.config.document`), the models judge them in strict mode,
`node.config.checks` looks across sections, and every finding is put beside its line.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from node.config.checks import cross_checks
from node.config.document import Document, Location, from_values, parse
from node.config.match import OPERATORS, Operator
from node.config.model import Config
from node.config.suggest import did_you_mean, model_at
from node.config.types import BASE_FOLDER
from node.errors import ConfigError
from pipelines.catalog import PIPELINES

_YAML_1_1_BOOLEANS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_MESSAGES: Final = {
    "tuple_type": "needs a list, for example [a, b]",
    "model_type": "needs keys with values below it",
    "model_attributes_type": "needs keys with values below it",
    "mapping_type": "needs keys with values below it",
    "dict_type": "needs keys with values below it",
    "too_short": "needs at least one entry",
    "string_too_short": "is an empty text",
}
"""Validation error type -> our words, where pydantic's speak of Python."""
_MAX_BYTES: Final = 1_000_000
"""A configuration is a page or two; more is another file by mistake."""


def load(path: Path) -> Config:
    """Return the configuration in `path`.

    Raises
    ------
    ConfigError
        With every problem as ``file:line: path: message``, in the order of the file.
    """
    document = parse(_text(path))
    config: Config | None = None
    if document.tree is not None:
        config = _validated(document, path)
        _check_settings(document)
        for location, message in cross_checks(document.tree):
            document.report(location, message)
    if document.problems or config is None:
        unique = dict.fromkeys(sorted(document.problems, key=lambda p: p.line))
        raise ConfigError([problem.told(str(path)) for problem in unique])
    return config


def explain_settings(
    error: ValidationError, model: type[BaseModel], tree: dict[str, JsonValue]
) -> list[str]:
    """Return ``key: message`` for everything that `model` refuses in `tree`."""
    document = from_values(tree)
    for details in error.errors(include_url=False, include_input=False):
        document.report(*_explained(details, document, model))
    return [
        f"{'.'.join(str(part) for part in problem.location)}: {problem.message}"
        for problem in document.problems
    ]


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(data) > _MAX_BYTES:
        raise ConfigError([f"{path}: has {len(data)} bytes; this is no configuration"])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text"]) from None


def _validated(document: Document, path: Path) -> Config | None:
    base = path.absolute().parent
    try:
        return Config.model_validate_json(json.dumps(document.tree), context={BASE_FOLDER: base})
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            location, message = _explained(details, document, Config)
            document.report(location, message)
    return None


def _check_settings(document: Document) -> None:
    """Judge the settings of each route by the model of its pipeline."""
    for location, model in _settings_models(document.tree):
        try:
            model.model_validate_json(json.dumps(document.value_at(location)))
        except ValidationError as error:
            for details in error.errors(include_url=False, include_input=False):
                below, message = _explained(details, document, model, location)
                document.report(below, message)


def _settings_models(tree: JsonValue) -> Iterator[tuple[Location, type[BaseModel]]]:
    routes = tree.get("routes") if isinstance(tree, dict) else None
    for i, route in enumerate(routes if isinstance(routes, list) else []):
        if isinstance(route, dict) and isinstance(route.get("settings"), dict):
            spec = PIPELINES.get(str(route.get("pipeline")))
            if spec is not None:
                yield ("routes", i, "settings"), spec.settings


def _explained(
    details: ErrorDetails, document: Document, root: type[BaseModel], above: Location = ()
) -> tuple[Location, str]:
    """Return where a validation error stands in the file, and what to do about it."""
    location: Location = above
    for part in details["loc"]:  # pydantic adds tags and "[key]", which the file does not have
        if (*location, part) in document.lines:
            location = (*location, part)
    match details["type"]:
        case "extra_forbidden":
            model = model_at(root, details["loc"][:-1])
            if model is None or issubclass(model, Operator):
                return location[:-1], "one operator for one keyword; use a second rule or a regex"
            near = did_you_mean(str(location[-1]), model.model_fields)
            return location, f"not a known key{near}"
        case "missing":
            example = _example(model_at(root, details["loc"][:-1]), str(details["loc"][-1]))
            return (*location, details["loc"][-1]), f"is missing{example}"
        case "union_tag_not_found" | "union_tag_invalid":
            return location, _no_operator(document.value_at(location))
        case _:
            return location, _message(details, document.value_at(location))


def _example(model: type[BaseModel] | None, key: str) -> str:
    found = model.model_fields.get(key) if model else None
    if found is None or not found.examples:
        return ""
    return f"; for example {key}: {json.dumps(found.examples[0])}"


def _no_operator(value: JsonValue) -> str:
    words = ", ".join(OPERATORS)
    if isinstance(value, dict) and value:
        word = next(iter(value))
        return f"'{word}' is not one of {words}{did_you_mean(word, OPERATORS)}"
    return f"needs one of {words}, for example {{equals: {json.dumps(value)}}}"


def _message(details: ErrorDetails, value: JsonValue) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if value is None:
        return "is empty; give a value or leave the key out"
    if kind in {"enum", "literal_error"}:
        known = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{value!r} is not one of {', '.join(known)}{did_you_mean(str(value), known)}"
    if kind in {"string_type", "path_type"} and isinstance(value, bool | int | float):
        return f'{json.dumps(value)} is not text; quote it: "{json.dumps(value)}"'
    if kind == "bool_type" and str(value).lower() in _YAML_1_1_BOOLEANS:
        return f"{value!r} is text in YAML 1.2; write {_YAML_1_1_BOOLEANS[str(value).lower()]}"
    if kind in {"int_type", "float_type"} and isinstance(value, str) and value.isdigit():
        return f'"{value}" is text; write the number without quotes'
    if kind == "value_error":
        return str(context["error"])
    return _MESSAGES.get(kind) or details["msg"][0].lower() + details["msg"][1:]
