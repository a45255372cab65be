"""What a mistyped word may have meant, and what the models know at a place in the file."""

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from node.config.match import Operator


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?``, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def model_at(root: type[BaseModel], loc: tuple[str | int, ...]) -> type[BaseModel] | None:
    """Return the model that judges the value at `loc` of a pydantic error, if it is one.

    Parameters
    ----------
    root : type[BaseModel]
        Model of the whole.
    loc : tuple[str | int, ...]
        Field names, positions, keys of maps, and operator names where a condition stands.
    """
    annotation: Any = root
    for part in loc:
        annotation = _below(annotation, part)
    return annotation if _is_model(annotation) else None


def _below(annotation: Any, part: str | int) -> Any:  # noqa: ANN401 - annotations have no common type
    origin, arguments = get_origin(annotation), get_args(annotation)
    if _is_model(annotation):
        field = annotation.model_fields.get(part)
        return _given(field.annotation) if field else None
    if origin is Annotated:
        return _below(arguments[0], part)
    if origin is tuple:
        return _bare(arguments[0])
    if origin is Mapping:
        return _bare(arguments[1])
    if origin in {Union, types.UnionType}:
        members = [_bare(argument) for argument in arguments]
        operators = [m for m in members if _is_model(m) and issubclass(m, Operator)]
        if operators:
            return next((m for m in operators if m.symbol == part), None)
        return next((found for m in members if (found := _below(m, part)) is not None), None)
    return None


def _given(annotation: Any) -> Any:  # noqa: ANN401 - as above
    """Return the type of a value that is there, where it may be left out."""
    members = [m for m in get_args(annotation) if m is not types.NoneType]
    optional = get_origin(annotation) is types.UnionType and len(members) == 1
    return members[0] if optional else annotation


def _bare(annotation: Any) -> Any:  # noqa: ANN401 - as above
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
