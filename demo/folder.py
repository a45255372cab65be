"""``make demo DATA=<folder>``: anybody's DICOM through the node, and what became of each part."""

import time
from collections import Counter
from pathlib import Path
from typing import Final

from demo import readback
from demo.archive import start_archive
from demo.push import push
from demo.runner import MODALITY, Node, Progress
from demo.screen import Screen, table

SETTLED_S: Final = 4.0
"""Nothing on its way for so long: the node is done."""
HOLD_AFTER_S: Final = 10.0
"""What waits for a missing part is held, and explained, after this time."""


def run(data: Path, output: Path, *, embedded: bool, timeout_s: float, screen: Screen) -> bool:
    """Push everything under `data` and show statuses, results and holds.

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
        outcome = Counter(
            f"0x{s.status:04X} {s.note}".strip() if s.status is not None else f"not sent: {s.note}"
            for s in sent
        )
        screen.show(table(("answer", "files"), outcome.most_common()))
        progress = wait(node, timeout_s, screen)
        _show(progress, screen)
        received = readback.read(archive.fetch(output / "received"))
        rows = readback.came_back(received, archive.arrivals(), sent)
        screen.say(f"came back, in {output / 'received'}: {received.count()} objects")
        head = ("object", "number", "first, after the last C-STORE response")
        screen.show(table(head, rows) if rows else ["nothing"])
        delivered = received.count() >= progress.deliveries("SENT")
        return node.running() and not progress.busy() and delivered
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


def _show(progress: Progress, screen: Screen) -> None:
    states = Counter((j["pipeline"], j["state"]) for j in progress.jobs)
    rows = [(pipeline, state, n) for (pipeline, state), n in sorted(states.items())]
    screen.show(table(("pipeline", "state", "jobs"), rows) if rows else ["no route matched"])
    for item in progress.held:
        screen.say(f"held {item['kind']} {item['id']}: {item['reason']}")
        if item.get("hint"):
            screen.say(f"    hint: {item['hint']}")
