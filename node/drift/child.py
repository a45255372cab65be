"""The child that compares: one pair of structure sets in, scores out, then it ends.

It reads one JSON line ``{"images": [...], "draft": "...", "approved": "...", "memory_mb": 12288}``
and answers ``{"scores": [...]}`` or ``{"refused": "..."}``; no value of an object is in it.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from node.engine.confined import address_space, die_with, go_first, take_standard_output
from node.log import configure, event
from node.store.acceptance import Score
from pipelines.api import InputRejected, Json
from pipelines.autocontour.acceptance import Accepted, accepted

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Answer one line.

    Parameters
    ----------
    arguments
        Process id of the node.
    """
    die_with(int(arguments[0]))
    go_first()
    answers = take_standard_output()
    configure("json", "INFO", sys.stderr)
    answers.write(json.dumps(answer(json.loads(sys.stdin.readline()))) + "\n")
    answers.flush()
    return 0


def answer(asked: Mapping[str, Json]) -> dict[str, Json]:
    """Return the scores, or why there are none; never raises."""
    images = [Path(name) for name in cast("list[str]", asked["images"])]
    draft, approved = Path(str(asked["draft"])), Path(str(asked["approved"]))
    try:
        with address_space(asked.get("memory_mb")):
            found = accepted(images, draft, approved)
    except InputRejected as refusal:
        return {"refused": str(refusal)}
    except Exception as error:  # noqa: BLE001 - the edge: the objects are other people's bytes
        event(_log, "comparison_failed", level=logging.ERROR, error=error)
        return {"refused": f"the comparison failed ({type(error).__name__})"}
    return {"scores": [asdict(_score(one)) for one in found]}


def _score(one: Accepted) -> Score:
    pair = one.pair
    return Score(
        organ=pair.name,
        theirs=pair.theirs,
        model=one.model,
        version=one.version,
        dice=pair.agreement.dice,
        surface_dice=pair.agreement.surface_dice,
        hd95_mm=pair.agreement.hd95_mm,
        added_path_mm=pair.added_path_mm,
        volume_ml=pair.volumes_ml[0],
        volume_theirs_ml=pair.volumes_ml[1],
        unchanged=one.unchanged,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
