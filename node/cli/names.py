"""``rtnode names``: names of structures against TG-263, and templates of planning systems.

Reading DICOM and YAML takes libraries that other commands do without: imported where needed.
"""

import json
from pathlib import Path
from typing import get_args

import click

from node.cli.common import echo_json, json_option
from node.cli.exits import Exit
from node.cli.text import table
from pipelines.api import InputRejected

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def names() -> None:
    """Check names of structures, and import structure templates."""


@names.command()
@click.argument("rtstruct", type=_FILE)
@json_option
def check(rtstruct: Path, *, as_json: bool) -> None:
    """Compare the ROI names of an RTSTRUCT with TG-263.

    Each name gets the TG-263 name that it probably means, from a small table of common spellings;
    a name that the table does not know is only checked for length, characters and uniqueness.
    The exit code is 1 when a name should be changed.
    """
    from pipelines.dicom.nomenclature import judge  # noqa: PLC0415 - see the module
    from pipelines.dicom.rtstruct import read_structure_set  # noqa: PLC0415 - see the module

    try:
        found = judge([roi.name for roi in read_structure_set(rtstruct).rois])
    except InputRejected as refusal:
        raise click.ClickException(str(refusal)) from refusal
    if as_json:
        echo_json([{"name": j.name, "suggestion": j.suggestion, "faults": j.faults,
                    "conforms": j.conforms} for j in found])  # fmt: skip
    else:
        rows = [
            ("ok" if j.conforms else "change", j.name, _advice(j.name, j.suggestion),
             "; ".join(j.faults))
            for j in found
        ]  # fmt: skip
        for line in table(("", "name", "TG-263", "problem"), rows):
            click.echo(line)
    if not all(j.conforms for j in found):
        click.get_current_context().exit(Exit.FAILED)


def _advice(name: str, suggestion: str | None) -> str:
    if suggestion is None:
        return "not in the table"
    return "=" if suggestion == name else suggestion


@names.command("import-template")
@click.argument("xml", type=_FILE)
def import_template(xml: Path) -> None:
    """Print an Eclipse structure template (XML) as the `template` of an autocontour route.

    Structures that only a model pack finds, and those that nothing here finds, are told as
    comments. The exit code is 1 when none is left.
    """
    from pipelines.autocontour import eclipse_template  # noqa: PLC0415 - see the module
    from pipelines.autocontour.template import ClassicalName  # noqa: PLC0415 - as above

    try:
        found = eclipse_template.import_template(xml)
    except eclipse_template.TemplateRefused as refusal:
        raise click.ClickException(str(refusal)) from refusal
    click.echo("template:")
    classical = get_args(ClassicalName)
    for entry in found.entries:
        values = entry.model_dump(mode="json", exclude_defaults=True)
        pairs = ", ".join(f"{key}: {json.dumps(value)}" for key, value in values.items())
        note = "" if entry.structure in classical else "# with a model_pack that finds it: "
        click.echo(f"  {note}- {{{pairs}}}")
    for name in found.unknown:
        click.echo(f"  # not found by this node, or found above: {json.dumps(name)}")
    if not any(entry.structure in classical for entry in found.entries):
        click.get_current_context().exit(Exit.FAILED)
