"""``rtnode check FILES --profile NAME``: could a planning system import these objects.

Reading DICOM takes libraries that other commands do without: imported where needed.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from node.cli.common import echo_json
from node.cli.text import table
from pipelines.api import InputRejected
from pipelines.dicom.import_profiles import PROFILES, Action, Profile, TpsProfile


def check_objects(paths: Sequence[Path], system: TpsProfile, *, as_json: bool) -> bool:
    """Print what the objects break of a profile; return whether all of them may be imported.

    Raises
    ------
    ClickException
        A file is no DICOM object.
    """
    from pipelines.dicom.import_prepare import judge  # noqa: PLC0415 - see the module

    profile = PROFILES[system]
    files = [f for path in paths for f in (sorted(_below(path)) if path.is_dir() else [path])]
    try:
        found = judge(files, profile)
    except InputRejected as refusal:
        raise click.ClickException(str(refusal)) from refusal
    words = [
        Action.HOLD if _word(profile, p.rule) is Action.FIX and not p.repairable
        else _word(profile, p.rule)
        for p in found
    ]  # fmt: skip
    if as_json:
        echo_json([{**asdict(p), "action": word} for p, word in zip(found, words, strict=True)])
    else:
        for line in table(
            ("", "rule", "what"),
            [(word.value, p.rule, p.message) for p, word in zip(found, words, strict=True)],
        ):
            click.echo(line)
        click.echo(f"{len(files)} files, {len(found)} problems by the rules of {profile.title}")
    return bool(files) and Action.HOLD not in words


def print_rules(system: TpsProfile, *, as_json: bool) -> None:
    """Print the rules of a profile, with what is known and what is assumed."""
    profile = PROFILES[system]
    if as_json:
        echo_json({name: asdict(rule) for name, rule in profile.rules.items()})
        return
    click.echo(profile.title)
    rows = [
        (name, rule.action.value, rule.basis.value,
         rule.demand.format(limit=f"{rule.limit or 0:g}"), rule.source)
        for name, rule in profile.rules.items()
    ]  # fmt: skip
    for line in table(("rule", "action", "basis", "demand", "source"), rows):
        click.echo(line)


def _word(profile: Profile, rule: str) -> Action:
    return profile.rules[rule].action


def _below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.dcm") if path.is_file()]
