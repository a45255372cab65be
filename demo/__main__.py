"""``make demo``: a patient through the whole node, checked from outside. Exit 0 only if all passed.

Generates a patient, starts an archive and the node, pushes CT, CBCT and REG as a modality and
RTSTRUCT, RTPLAN and RTDOSE as a TPS, waits, fetches the results back from the archive, reads them
again and compares them with the truth. Leaves ``demo-output/index.html``.
"""

import argparse
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from demo import folder, pictures, readback
from demo.archive import Archive, start_archive
from demo.checks import Check, check_all
from demo.patient import Patient, generate, write
from demo.push import Sent, push
from demo.readback import Received, came_back
from demo.runner import MODALITY, TPS, Node
from demo.screen import Screen, table

OUTPUT: Final = Path("demo-output")
MARKER: Final = ".rtnode-demo"
"""Lies in every folder that the demo made: only such a folder is ever emptied."""
TIMEOUT_S: Final = 900.0


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="push this folder instead of a generated patient")
    parser.add_argument("--output", type=Path, help=f"emptied first; default {OUTPUT}")
    parser.add_argument("--embedded", action="store_true", help="no Orthanc, even if installed")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, help="seconds to wait")
    arguments = parser.parse_args()
    data: Path | None = arguments.data.resolve() if arguments.data else None
    output: Path = (arguments.output or (OUTPUT / "folder" if data else OUTPUT)).resolve()
    if data and not data.is_dir():
        parser.error(f"{data} is not a folder")
    if problem := _emptied(output, data):
        parser.error(problem)
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings show values of the data
    screen = Screen()
    options = {"embedded": arguments.embedded, "timeout_s": arguments.timeout, "screen": screen}
    try:
        passed = folder.run(data, output, **options) if data else run(output, **options)
    except RuntimeError as error:  # archive or node did not come up: the text says why
        screen.say(f"failed: {error}")
        passed = False
    return 0 if passed else 1


def _emptied(output: Path, data: Path | None) -> str:
    """Empty `output`, if it is ours; return why not, or nothing."""
    if data and output in (data, *data.parents):
        return f"{output} would be emptied, but holds the data; choose another --output"
    marker = output / MARKER
    if output.is_dir() and any(output.iterdir()) and not marker.exists():
        return f"{output} holds files that are not the demo's; choose another --output"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    marker.touch()
    return ""


def run(output: Path, *, embedded: bool, timeout_s: float, screen: Screen) -> bool:
    """Run the generated patient through the node; return whether every check passed."""
    screen.say("generating a patient (phantom, no person's data)")
    patient = generate(say=screen.say)
    write(patient, output / "sent")
    archive = start_archive(output / "archive", embedded=embedded)
    screen.say(f"archive: {archive.title} on port {archive.port}")
    node = Node(output, archive)
    try:
        node.start()
        screen.say(f"node on port {node.port}, config {node.config}")
        sent = _push(output / "sent", node, screen)
        _wait(node, archive, patient, timeout_s, screen)
        received = readback.read(archive.fetch(output / "received"))
        checks = [_sent_check(sent), *check_all(received, patient)]
        facts = _facts(sent, archive, received)
    finally:
        node.stop()
        archive.stop()
    page = pictures.page(output, checks, facts, pictures.draw(received, patient, output))
    rows = [(c.item, c.what, c.found, c.wanted, "ok" if c.passed else "FAILED") for c in checks]
    screen.show(table(("object", "what", "found", "wanted", ""), rows))
    screen.show(table(("run", ""), facts))
    screen.say(f"pictures: {page}")
    return all(c.passed for c in checks)


def _push(sent: Path, node: Node, screen: Screen) -> list[Sent]:
    """Push as two devices: images and registration by the modality, plan data by the TPS."""
    done: list[Sent] = []
    for calling, kinds in (
        (MODALITY, ("CT", "CBCT", "REG")),
        (TPS, ("RTSTRUCT", "RTPLAN", "RTDOSE")),
    ):
        files = [p for kind in kinds for p in sorted((sent / kind).iterdir())]
        began = time.monotonic()
        done += push(files, node.peer(calling), progress=lambda s: screen.tick("push", s.path.name))
        seconds = time.monotonic() - began
        screen.done(f"{calling} pushed {', '.join(kinds)}: {len(files)} objects in {seconds:.1f} s")
    return done


def _wait(node: Node, archive: Archive, patient: Patient, timeout_s: float, screen: Screen) -> None:
    """Wait until all results arrived, or nothing more can come."""
    wanted = 2 + len(patient.modality["CBCT"])
    deadline = time.monotonic() + timeout_s
    while True:
        progress = node.progress()
        arrived = len(archive.arrivals())
        screen.tick("working", f"{progress.line()}; {arrived} of {wanted} at the archive")
        finished = arrived >= wanted and not progress.busy()
        if finished or progress.held or time.monotonic() > deadline or not node.running():
            break
        time.sleep(1.0)
    screen.done(f"{progress.line()}; {arrived} of {wanted} at the archive")
    for item in progress.held:
        screen.say(f"held {item['kind']} {item['id']}: {item['reason']} ({item['hint']})")


def _sent_check(sent: list[Sent]) -> Check:
    stored = sum(s.status == 0 for s in sent)
    return Check(
        item="node", what="C-STORE answered 0x0000", found=f"{stored}", wanted=f"{len(sent)}",
        passed=stored == len(sent),
    )  # fmt: skip


def _facts(sent: list[Sent], archive: Archive, received: Received) -> list[tuple[str, str]]:
    """Return what is worth knowing besides the checks."""
    return [
        ("archive", archive.title),
        ("objects pushed", str(len(sent))),
        *((f"last C-STORE response to {kind}", when) for kind, _, when in came_back(
            received, archive.arrivals(), sent)),
        ("arrival measured as", archive.clock),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
