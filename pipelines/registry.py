"""From the name of a pipeline to the function that runs it; only the child process looks here.

Each import stands inside a function, so that a job loads the libraries of its own pipeline alone
and the import contracts still see it.
"""
# ruff: noqa: PLC0415 - see above: torch alone costs seconds and 250 MiB

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from pipelines.api import Run


def load(name: str) -> Run:
    """Return the function of pipeline `name` with its libraries loaded.

    Raises
    ------
    KeyError
        If there is no such pipeline.
    """
    return _LOADERS[name]()


def _autocontour() -> Run:
    from pipelines.autocontour.pipeline import run

    return run


def _synthetic_ct() -> Run:
    from pipelines.synthetic_ct.pipeline import run

    return run


def _dose_radiomics() -> Run:
    from pipelines.dose_radiomics.pipeline import run

    return run


def _image_radiomics() -> Run:
    from pipelines.image_radiomics.pipeline import run

    return run


def _image_quality() -> Run:
    from pipelines.image_quality.pipeline import run

    return run


_LOADERS: Final[Mapping[str, Callable[[], Run]]] = MappingProxyType(
    {
        "autocontour": _autocontour,
        "synthetic_ct": _synthetic_ct,
        "dose_radiomics": _dose_radiomics,
        "image_radiomics": _image_radiomics,
        "image_quality": _image_quality,
    }
)
"""The names of `pipelines.catalog.PIPELINES`."""
