"""The sample configuration: made from the models, whole, loadable."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from node.config.load import load
from node.config.match import OPERATORS
from node.config.model import Config
from node.config.sample import _section_of, render

ROOT = Path(__file__).resolve().parents[4]


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        below, _ = _section_of(field.annotation)
        if below is not None:
            yield from sections(below)


def test_the_committed_sample_is_what_the_models_say() -> None:
    """Else: ``python -m node.config.sample > config.yaml``."""
    assert (ROOT / "config.yaml").read_text() == render()


def test_the_sample_loads_as_it_is() -> None:
    config = load(ROOT / "config.yaml")

    assert config.node.host == "127.0.0.1"
    assert {route.pipeline for route in config.routes} == {
        "autocontour", "synthetic_ct", "dose_radiomics", "image_radiomics", "image_quality",
    }  # fmt: skip


def test_the_sample_loads_with_every_example_switched_on(tmp_path: Path) -> None:
    """What is commented out is an example that would be right."""
    text = re.sub(r"^( *)#(?! )", r"\1", render(), flags=re.MULTILINE)
    text = text.replace('after: "keep"', 'after: "move"')  # done_dir is switched on too
    path = tmp_path / "config.yaml"
    path.write_text(text)

    config = load(path)

    assert config.hot_folders[0].done_dir == tmp_path / "rtnode-drop-done"
    assert config.routes[0].match.keywords["KVP"].symbol == "range"


@pytest.mark.parametrize("model", dict.fromkeys(sections(Config)), ids=lambda m: m.__name__)
def test_every_key_is_in_the_sample_with_its_description(model: type[BaseModel]) -> None:
    sample = render()
    flat = re.sub(r"\s*\n\s*# ", " ", sample)

    for name, field in model.model_fields.items():
        assert re.search(rf"^ *#?(- )?{name}:", sample, re.MULTILINE), name
        assert field.description
        assert field.description in flat, name


def test_every_operator_is_named_in_the_sample() -> None:
    flat = re.sub(r"\s*\n\s*# ", " ", render())

    assert f"Operators: {', '.join(OPERATORS)}." in flat


def test_no_line_of_the_sample_is_longer_than_a_screen() -> None:
    assert max(len(line) for line in render().splitlines()) <= 100
