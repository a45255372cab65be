"""``make demo DATA=<folder>``: anybody's DICOM through the node, and what became of each part."""

import time
from collections import Counter
from pathlib import Path
from typing import Final

from demo import readback
from demo.archive import start_archive
from demo.push import NO_ASSOCIATION, NO_RESPONSE, Sent, push
from demo.runner import MODALITY, Node, Progress
from demo.screen import Screen, table
from pipelines.report.page import Section, Table, write_page

SETTLED_S: Final = 4.0
"""Nothing on its way for so long: the node is done."""
HOLD_AFTER_S: Final = 10.0
"""What waits for a missing part is held, and explained, after this time."""

UNANSWERED: Final = (NO_ASSOCIATION, NO_RESPONSE)


def run(data: Path, output: Path, *, embedded: bool, timeout_s: float, screen: Screen) -> bool:
    """Push everything under `data`, show statuses, results and holds, and write a page of them.

    Returns
    -------
    bool
        True when the node answered for every object and delivered all that it made.
    """
    files = sorted(p for p in data.rglob("*") if p.is_file())
    screen.say(f"{len(files)} files under {data}")
    archive = start_archive(output / "archive", embedded=embedded)
    node = Node(output, archive, hold_after_s=HOLD_AFTER_S)
    try:
        node.start()
        sent = push(
            files, node.peer(MODALITY), progress=lambda s: screen.tick("pushing", s.path.name)
        )
        screen.done(f"pushed as {MODALITY}")
        progress = wait(node, timeout_s, screen)
        received = readback.read(archive.fetch(output / "received"))
        tables = [
            _answers(sent),
            _jobs(progress),
            _held(progress),
            Table(
                head=("came back", "objects", "first, after the last C-STORE response"),
                rows=readback.came_back(received, archive.arrivals(), sent),
                caption=archive.clock,
            ),
        ]
        for one in tables:
            screen.show(table(one.head, one.rows) if one.rows else [f"{one.head[0]}: none"])
        lead = f"{len(files)} files pushed as {MODALITY}; what came back lies in received/."
        section = Section(title="What became of it", tables=tables)
        page = write_page(output / "index.html", "rtnode demo: a folder", [section], lead=lead)
        screen.say(f"page: {page}, objects: {output / 'received'}")
        answered = not any(s.note in UNANSWERED for s in sent)
        delivered = received.count() >= progress.deliveries("SENT")
        return node.running() and answered and delivered and not progress.busy()
    finally:
        node.stop()
        archive.stop()


def wait(node: Node, timeout_s: float, screen: Screen) -> Progress:
    """Return the progress when nothing has been on its way for a while, or time is up."""
    deadline = time.monotonic() + timeout_s
    quiet_since: float | None = None
    while True:
        progress = node.progress()
        screen.tick("working", progress.line())
        now = time.monotonic()
        quiet_since = None if progress.busy() else quiet_since or now
        settled = quiet_since is not None and now - quiet_since > HOLD_AFTER_S + SETTLED_S
        if settled or now > deadline or not node.running():
            screen.done(progress.line())
            return progress
        time.sleep(1.0)


def _answers(sent: list[Sent]) -> Table:
    answers = Counter(
        f"0x{s.status:04X} {s.note}".strip() if s.status is not None else f"not sent: {s.note}"
        for s in sent
    )
    return Table(head=("answer of the node", "files"), rows=answers.most_common())


def _jobs(progress: Progress) -> Table:
    states = Counter((j["pipeline"], j["state"]) for j in progress.jobs)
    rows = [(pipeline, state, n) for (pipeline, state), n in sorted(states.items())]
    return Table(head=("pipeline", "state", "jobs"), rows=rows)


def _held(progress: Progress) -> Table:
    rows = [(h["kind"], h["subject"], h["reason"], h["hint"] or "-") for h in progress.held]
    return Table(head=("held", "what", "why", "what to do"), rows=rows)
