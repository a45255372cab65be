"""The configuration reference is printed from the model, and its mistakes are real."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from node.config import reference
from node.config.model import Config
from pipelines.catalog import PIPELINES

ROOT = Path(__file__).resolve().parents[4]


def test_the_page_is_what_the_model_says() -> None:
    """Else: ``python -m node.config.reference > docs/configuration.md``."""
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")

    assert page == reference.render(), "run the command in this test's docstring"


@pytest.mark.parametrize("model", [Config, *(spec.settings for spec in PIPELINES.values())])
def test_every_key_of_every_section_has_a_line_with_its_meaning(model: type[BaseModel]) -> None:
    page = reference.render()

    for name, field in model.model_fields.items():
        assert re.search(rf"^(\| `{name}` \||## `(.*\.)?{name}\b)", page, re.MULTILINE), name
        assert field.description


@pytest.mark.parametrize("what", [what for what, _ in reference.MISTAKES])
def test_a_mistake_is_named_with_file_and_line(what: str) -> None:
    page = reference.render()

    (row,) = (line for line in page.splitlines() if line.startswith(f"| {what} |"))
    assert "`config.yaml:" in row
