"""``rtnode echo`` and ``rtnode send``: talk to a peer of the configuration, without a node."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from node.cli.common import config_option, echo_json, json_option
from node.cli.exits import Exit
from node.config.model import Config
from node.errors import CannotUnderstand
from node.scu.association import PeerAE
from node.scu.destinations import peer_of
from node.scu.echo import echo as c_echo
from node.scu.sender import Outcome, Outgoing, Result, send_batch


@click.command()
@click.argument("peer")
@click.option(
    "--count", default=5, show_default=True, type=click.IntRange(1, 1000), help="C-ECHOs to send."
)
@config_option
@json_option
def echo(peer: str, count: int, config: Config, *, as_json: bool) -> None:
    """Ask PEER of the configuration whether it is there (C-ECHO), and how fast."""
    remote = peer_ae(config, peer)
    report = c_echo(remote, count=count)
    if as_json:
        echo_json(
            {
                "peer": peer,
                "ok": report.ok,
                "median_ms": report.median_ms,
                "hint": report.hint,
                "report": report,
            }
        )
    else:
        answer = "answers" if report.ok else "refuses C-ECHO"
        click.echo(
            f"{peer}: {remote} {answer}; associated in {report.associate_ms:.1f} ms,"
            f" C-ECHO median {report.median_ms:.2f} ms of {count}"
        )
        if report.hint:
            click.echo(f"hint: {report.hint}")
    click.get_current_context().exit(Exit.DONE if report.ok else Exit.FAILED)


@click.command()
@click.argument("peer")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@config_option
@json_option
def send(peer: str, paths: tuple[Path, ...], config: Config, *, as_json: bool) -> None:
    """Send DICOM files, or folders of them, to PEER of the configuration.

    The exit code is 0 only when the peer keeps every object.
    """
    remote = peer_ae(config, peer)
    items, passed_over = _readable(paths)
    results = _sent(remote, items, quiet=as_json) if items else []
    kept = [result for result in results if result.delivered]
    others = [result for result in results if result.outcome is not Outcome.SENT]
    if as_json:
        echo_json(
            {
                "peer": peer,
                "sent": len(kept),
                "failed": len(results) - len(kept),
                "not_dicom": len(passed_over),
                "objects": [
                    {
                        "path": r.item.path,
                        "sop_instance_uid": r.item.sop_instance_uid,
                        "outcome": r.outcome,
                        "status": r.status,
                        "reason": r.reason,
                        "hint": r.hint,
                    }
                    for r in results
                ],
            }
        )
    else:
        for result in others:
            click.echo(f"{result.item.path}: {result.reason}; {result.hint}".rstrip("; "))
        click.echo(
            f"{len(kept)} of {len(items)} objects sent to {remote};"
            f" {len(passed_over)} files are not DICOM"
        )
    all_kept = bool(items) and len(kept) == len(items)
    click.get_current_context().exit(Exit.DONE if all_kept else Exit.FAILED)


def _sent(remote: PeerAE, items: list[Outgoing], *, quiet: bool) -> list[Result]:
    """Send `items` behind a progress bar and return what became of each."""
    results: list[Result] = []
    with click.progressbar(
        length=len(items), label=f"to {remote}", hidden=quiet, file=sys.stderr
    ) as bar:

        def note(result: Result) -> None:
            results.append(result)
            bar.update(1)

        send_batch(remote, items, note)
    return results


def peer_ae(config: Config, name: str) -> PeerAE:
    """Return the peer called `name`; a usage error names those that can be called."""
    remote = peer_of(config, name) if name in config.peers else None
    if remote is None:
        known = ", ".join(n for n, p in config.peers.items() if p.host) or "none"
        raise click.BadParameter(f"'{name}' is no peer with host and port; there is: {known}")
    return remote


def _readable(paths: tuple[Path, ...]) -> tuple[list[Outgoing], list[Path]]:
    """Return the DICOM files under `paths` in name order, and the files that are none."""
    items, passed_over = [], []
    for path in _files(paths):
        try:
            items.append(Outgoing.read(path))
        except CannotUnderstand:
            passed_over.append(path)
    return items, passed_over


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(below for below in path.rglob("*") if below.is_file())
        else:
            yield path
