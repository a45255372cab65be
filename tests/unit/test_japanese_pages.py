"""The Japanese pages say what the English ones say: the same commands, links and codes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "README.ja.md": "README.md",
    "docs/operations.ja.md": "docs/operations.md",
    "docs/operator/held.ja.md": "docs/operator/held.md",
    "docs/operator/web.ja.md": "docs/operator/web.md",
}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(page: str) -> set[str]:
    """Return the commands of the node that a page names."""
    return set(re.findall(r"(?:`|/|sudo )rtnode ([a-z][a-z-]+)", page))


def targets(page: str) -> set[str]:
    """Return the make targets that a page names."""
    return set(re.findall(r"\bmake ([a-z]+)", page))


def codes(page: str) -> set[str]:
    """Return the words in code that hold a hyphen: codes of findings."""
    return set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", page))


@pytest.mark.parametrize(("japanese", "english"), PAGES.items())
def test_both_name_the_same_commands(japanese: str, english: str) -> None:
    assert commands(text(japanese)) == commands(text(english))


@pytest.mark.parametrize(("japanese", "english"), PAGES.items())
def test_each_links_to_the_other(japanese: str, english: str) -> None:
    assert f"]({Path(english).name})" in text(japanese)
    assert f"]({Path(japanese).name})" in text(english)


@pytest.mark.parametrize(("japanese", "english"), PAGES.items())
def test_the_japanese_page_names_no_code_or_target_of_its_own(japanese: str, english: str) -> None:
    assert codes(text(japanese)) <= codes(text(english))
    assert targets(text(japanese)) <= targets(text(english))


@pytest.mark.parametrize("japanese", PAGES)
def test_the_japanese_page_is_japanese(japanese: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|\([^)]*\)", "", text(japanese), flags=re.DOTALL)

    assert len(re.findall("[ぁ-んァ-ン一-龥]", prose)) > 300


def test_every_reason_of_a_held_thing_is_in_both_pages() -> None:
    """The reasons are shown in English: the first cell of a row is the same in both."""
    for japanese, english in PAGES.items():
        if "README" in english or "web" in english:
            continue
        first = [
            {
                row.split(" | ")[0]
                for row in re.findall(r"^\| (.+) \|$", text(name), re.MULTILINE)
                if not row.startswith(("---", "reason", "code", "`", "理由"))
            }
            for name in (japanese, english)
        ]
        assert first[0] == first[1], japanese
