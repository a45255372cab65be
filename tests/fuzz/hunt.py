"""Coverage-guided fuzzing with atheris: ``make fuzz TARGET="header explicit" SECONDS=600``.

Runs in an environment of its own (`make fuzz` makes it), beside the node's, and needs nothing of
CI. Without a target all get ``SECONDS`` each, one after the other, in forks of one process that is
instrumented once. A crash and its log are kept in ``.cache/fuzz/crashes``; when it is mended, its
input goes into ``tests/fuzz/corpus``, which CI replays. What reached new code is kept in
``.cache/fuzz/found`` for the next hunt.
"""

import argparse
import os
import re
import sys
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["node", "pipelines", "models", "pydicom", "pynetdicom"]):
    from tests.fuzz.targets import TARGETS, Target

LIMITS = ("-timeout=20", "-rss_limit_mb=4096", "-max_len=8192", "-print_final_stats=1")
"""An execution of 20 s hangs, a process of 4 GiB bloats; libFuzzer's own options."""


def hunt(target: Target, name: str, found: Path, options: list[str]) -> NoReturn:
    """Fuzz one target until the time is over or it crashes; ends this process."""
    folder = Path(tempfile.mkdtemp(prefix="rtnode-hunt-"))
    (found / "sound").write_bytes(target.sound(folder))
    for path in target.corpus(name):
        (found / path.name).write_bytes(path.read_bytes())

    def one(data: bytes) -> None:
        with suppress(*target.errors):
            target.run(data, folder)

    atheris.Setup([sys.argv[0], *options, str(found)], one)
    atheris.Fuzz()
    raise SystemExit(0)


def forked(name: str, seconds: int, work: Path) -> bool:
    """Hunt in a child; tell what became of it, and return whether nothing was found."""
    folder = name.replace(" ", "-")
    found, crashes = work / "found" / folder, work / "crashes"
    found.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    log = work / f"{folder}.log"
    options = [*LIMITS, f"-max_total_time={seconds}", f"-artifact_prefix={crashes / folder}-"]
    pid = os.fork()
    if pid == 0:
        with log.open("wb") as told:
            os.dup2(told.fileno(), 1)
            os.dup2(told.fileno(), 2)
        hunt(TARGETS[name], name, found, options)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    runs = re.findall(r"stat::number_of_executed_units: *(\d+)", log.read_text(errors="replace"))
    what = f"CRASH, see {log}" if status else "nothing"
    print(f"{name}: {runs[-1] if runs else '?'} executions, {len(list(found.iterdir()))} inputs,"
          f" found {what}", flush=True)  # fmt: skip
    return status == 0


def main() -> int:
    """Hunt in each wanted target; return 1 if one crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="", help="by default all")
    parser.add_argument("--seconds", type=int, default=60, help="of each target")
    parser.add_argument("--work", type=Path, default=Path(".cache/fuzz"))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the libraries' remarks about what is damaged
    names = [asked.target] if asked.target else list(TARGETS)
    return min(sum(not forked(name, asked.seconds, asked.work) for name in names), 1)


if __name__ == "__main__":
    sys.exit(main())
