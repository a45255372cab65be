"""Read the weights of a foreign checkpoint; runs in the converter's process and nowhere else.

A checkpoint is a pickle: opening it may run a program. First only plain tensors, numbers and
containers are let in, as `torch.load` does with ``weights_only``, and besides them the harmless
NumPy scalars that nnU-Net puts into its log. A checkpoint that needs more is opened in full only
when the person who imports it trusts it, and behind `models.foreign.jail` even then.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy._core import multiarray
from torch import Tensor

HARMLESS: Final = (
    multiarray.scalar,
    multiarray._reconstruct,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(name)) for name in ("f8", "f4", "f2", "i8", "i4", "u1", "?")),
)
"""What may be rebuilt besides tensors: numbers and arrays of numbers."""
OLD_NAMES: Final = (
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
)
"""The same under the names of NumPy 1."""
PLACES: Final = ("network_weights", "state_dict", "model", "network", "net")
"""Where in a checkpoint the weights lie, where they are not all of it."""
REPEATED: Final = (".all_modules.", "decoder.encoder.")
"""Parts of names under which nnU-Net's networks hold a parameter a second time."""
WRAPPERS: Final = ("module.", "_orig_mod.")
"""What torch puts before names when a network was trained on several devices or compiled."""


class WeightsRefused(Exception):
    """The weights cannot be read, or do not fit; the message says why."""


def read_weights(path: Path, *, trust: bool) -> dict[str, Tensor]:
    """Return the weights in a checkpoint: name -> tensor, float32, each once.

    Raises
    ------
    WeightsRefused
        If the file is no checkpoint, or holds more than may be opened.
    """
    if path.suffix == ".ts":
        found: Any = torch.jit.load(str(path), map_location="cpu").state_dict()
    else:
        found = _opened(path, trust=trust)
    for place in PLACES:
        if isinstance(found, Mapping) and isinstance(found.get(place), Mapping):
            found = found[place]
    if not isinstance(found, Mapping) or not any(isinstance(v, Tensor) for v in found.values()):
        raise WeightsRefused(f"{path.name} holds no weights")
    weights = {}
    for name, value in found.items():
        for wrapper in WRAPPERS:
            name = name.removeprefix(wrapper)  # noqa: PLW2901 (the name without its wrappers)
        if isinstance(value, Tensor) and not any(part in name for part in REPEATED):
            weights[name] = value.detach().float() if value.is_floating_point() else value
    return weights


def _opened(path: Path, *, trust: bool) -> Any:  # noqa: ANN401 (whatever the file holds)
    try:
        with torch.serialization.safe_globals([*HARMLESS, *OLD_NAMES]):
            return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (this file)
    except Exception as error:
        if trust:
            return _trusted(path)
        raise WeightsRefused(_why(path)) from error


def _trusted(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    try:
        return torch.load(path, map_location="cpu", weights_only=False)  # noqa: TID251 (behind the jail)
    except Exception as error:
        raise WeightsRefused(
            f"{path.name} cannot be opened: {type(error).__name__}; it may need a library that is "
            "not here, or rights that it was not given"
        ) from error


def _why(path: Path) -> str:
    """Return why a checkpoint was not opened, naming what it asks for."""
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # noqa: BLE001 (no archive of torch: it is no checkpoint)
        return f"{path.name} is no checkpoint of torch"
    if not wanted:
        return f"{path.name} is damaged"
    names = ", ".join(sorted(map(str, wanted))[:5])
    return (
        f"{path.name} holds more than numbers ({names}): opening it may run a program. "
        "Where you know who made it, say --trust"
    )
