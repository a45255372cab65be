"""``rtnode config show``: the configuration as it takes effect, defaults filled in."""

import re
import sys
from typing import Final

import click
from pydantic import JsonValue
from ruamel.yaml import YAML

from node.cli.common import config_option, echo_json, json_option
from node.config.model import Config

_PASSWORD: Final = re.compile(r"(?<=://)([^:/@]*):[^@]*@")
"""``user:password@`` of a URL."""


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command()
@config_option
@json_option
def show(config: Config, *, as_json: bool) -> None:
    """Print the whole configuration that is in effect, with every default; secrets are masked."""
    effective = masked(config.model_dump(mode="json"))
    if as_json:
        echo_json(effective)
        return
    writer = YAML(typ="safe")
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    writer.dump(effective, sys.stdout)


def masked(value: JsonValue) -> JsonValue:
    """Return `value` with the password of every URL replaced by ``***``."""
    if isinstance(value, dict):
        return {key: masked(below) for key, below in value.items()}
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, str):
        return _PASSWORD.sub(r"\1:***@", value)
    return value
