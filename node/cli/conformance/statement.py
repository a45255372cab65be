"""The DICOM conformance statement (PS3.2 annex N) and the IHE statement of a configuration."""

import importlib.metadata
import json
from pathlib import Path
from typing import Final

import pydicom
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from node.cli.conformance import site, tables
from node.cli.conformance.codes import codes
from node.cli.conformance.markdown import contents
from node.cli.conformance.objects import CREATED
from node.config.document import parse
from node.config.model import Config
from node.config.sample import render as sample
from node.scu.commitment import MOST_OBJECTS

_HERE: Final = Path(__file__).resolve().parent
SAMPLE: Final = "the sample configuration"


def statement(config: Config, *, source: str) -> str:
    """Return the statement as Markdown.

    Parameters
    ----------
    config : Config
        Peers, ports, routes and limits are those of this node.
    source : str
        What the reader is told that the values come from.
    """
    values: dict[str, object] = {
        **tables.fixed(),
        **site.of(config, CREATED),
        "codes": codes(),
        "objects": CREATED,
        "most_committed": MOST_OBJECTS,
        "pydicom": pydicom.__version__,
        "source": source,
        "version": importlib.metadata.version("rtnode"),
    }
    template = _environment().get_template("statement.md.jinja")
    first = template.render(values, contents="")
    return template.render(values, contents=contents(first, levels=(2, 3)))


def sample_config() -> Config:
    """Return the sample configuration; paths stay relative: the text is the same anywhere."""
    return Config.model_validate_json(json.dumps(parse(sample()).tree))


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=False,  # noqa: S701 - Markdown for people; the values are ours or the configuration's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
