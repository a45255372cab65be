"""The child that decodes: JSON lines in, a JSON line and bytes out.

It keeps the last scenes in memory, writes no file, and ends when its standard input ends.
"""

import json
import os
import resource
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final, TypeAlias, cast

from node.web.pictures.scene import Scene
from pipelines.api import InputRejected, Json

SCENES: Final = 3
"""Scenes in memory; the one unused for longest gives way."""
_OPEN_FILES: Final = 64

Answer: TypeAlias = tuple[dict[str, Json], bytes]
_WHAT: Final[Mapping[str, Callable[..., Answer]]] = {
    "scene": Scene.facts,
    "plane": Scene.plane,
    "dose": Scene.dose_plane,
    "lines": Scene.lines,
    "histogram": Scene.histograms,
}


def main(arguments: list[str]) -> None:
    """Answer until standard input ends."""
    _limit(int(arguments[0]) * 1024 * 1024)
    answers = _take_standard_output()
    scenes: OrderedDict[str, Scene] = OrderedDict()
    for line in sys.stdin.buffer:
        head, body = answer(json.loads(line), scenes)
        answers.write(json.dumps({**head, "bytes": len(body)}).encode() + b"\n" + body)
        answers.flush()


def answer(asked: Mapping[str, Json], scenes: "OrderedDict[str, Scene]") -> Answer:
    """Return what is asked for; a refusal is told without a value of the object."""
    try:
        scene = _scene(asked["subject"], scenes)
        return _WHAT[str(asked["what"])](scene, **cast("dict[str, Json]", asked["arguments"]))
    except InputRejected as error:
        return {"refused": str(error)}, b""
    except MemoryError:
        return {"refused": "the images need more memory than web.viewer_memory_mb"}, b""
    except Exception as error:  # noqa: BLE001 - the edge: any decoder may raise anything
        return {"refused": f"the objects cannot be decoded ({type(error).__name__})"}, b""


def _scene(tree: Json, scenes: "OrderedDict[str, Scene]") -> Scene:
    if not isinstance(tree, dict):
        raise InputRejected("nothing to show")
    key = str(tree["key"])
    scene = scenes.pop(key, None)
    if scene is None:
        while len(scenes) >= SCENES:
            scenes.popitem(last=False)
        scene = Scene.read(tree)
    scenes[key] = scene
    return scene


def _limit(memory: int) -> None:
    """Give up what a decoder does not need: memory beyond the limit, files, cores, priority."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    os.nice(5)


def _take_standard_output() -> BinaryIO:
    """Return what was standard output; libraries that print find nothing there."""
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return answers


if __name__ == "__main__":
    main(sys.argv[1:])
