"""Settings of a pipeline from ``--set key=value`` words of a command line."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from node.config.load import explain_settings
from node.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def settings_from(model: type[M], overrides: Mapping[str, str]) -> M:
    """Return the settings of `model` with `overrides` over its defaults.

    Parameters
    ----------
    model : type[BaseModel]
        The `PipelineSpec.settings` of the pipeline.
    overrides : Mapping[str, str]
        Key -> value as written. A dot steps into a nested model. A value is read as JSON where
        it is JSON (``0.5``, ``true``, ``[1, 2]``), else as text.

    Raises
    ------
    ConfigError
        With every key or value that the model refuses.
    """
    tree: dict[str, JsonValue] = {}
    for key, text in overrides.items():
        _put(tree, key, _json_or_text(text))
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        for wrong in error.errors(include_url=False, include_input=False):
            key = ".".join(str(part) for part in wrong["loc"])
            if wrong["type"] == "string_type" and key in overrides:
                _put(tree, key, overrides[key])  # a text that looks like a number
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        problems = explain_settings(error, model, tree)
        raise ConfigError([f"--set {problem}" for problem in problems]) from None


def _json_or_text(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value


def _put(tree: dict[str, JsonValue], key: str, value: JsonValue) -> None:
    *above, last = key.split(".")
    for part in above:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise ConfigError([f"--set {key}: '{part}' has a value already"])
        tree = below
    tree[last] = value
