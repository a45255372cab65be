"""docs/trace.md names tests that exist; docs/risk.md names requirements that are traced."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRACE = (ROOT / "docs/trace.md").read_text(encoding="utf-8")
RISK = (ROOT / "docs/risk.md").read_text(encoding="utf-8")


def functions(path: Path) -> dict[str, bool]:
    """Return test -> whether it is skipped whatever happens."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = {ast.unparse(mark).split("(")[0] for mark in node.decorator_list}
            found[node.name] = bool(marks & {"pytest.mark.skip", "pytest.mark.xfail"})
    return found


def test_each_requirement_has_tests_that_exist_and_run() -> None:
    files: dict[str, list[Path]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        files.setdefault(path.stem, []).append(path)
    rows = re.findall(r"^\| ([A-Z]\d+) \| [^|]+ \| (.+) \|$", TRACE, re.MULTILINE)
    wrong = []
    for requirement, cell in rows:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", cell)
        assert named, requirement
        for stem, test in named:
            known = {
                name: off for path in files.get(stem, []) for name, off in functions(path).items()
            }
            if known.get(test, True):
                wrong.append(f"{requirement}: {stem}::{test}")

    assert wrong == []
    assert len(rows) > 35


def test_no_requirement_is_named_twice() -> None:
    ids = re.findall(r"^\| ([A-Z]\d+) \|", TRACE, re.MULTILINE)

    assert len(set(ids)) == len(ids)


def test_each_hazard_rests_on_requirements_of_the_trace() -> None:
    ids = set(re.findall(r"^\| ([A-Z]\d+) \|", TRACE, re.MULTILINE))
    hazards = re.findall(r"^\| (H\d+) \|.*\|([^|]+)\|[^|]+\|$", RISK, re.MULTILINE)

    assert len(hazards) > 10
    for hazard, cell in hazards:
        named = set(re.findall(r"[A-Z]\d+", cell))
        assert named, hazard
        assert named <= ids, hazard


def test_every_model_pack_is_in_the_index_of_cards() -> None:
    page = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    packs = [path.parent.name for path in (ROOT / "models/packs").glob("*/model.json")]

    assert packs
    for name in packs:
        assert f"](../models/packs/{name}/CARD.md)" in page


def test_every_pipeline_page_has_a_picture_that_is_small() -> None:
    for page in ("contouring", "synthetic-ct", "dose-radiomics", "radiomics-engine"):
        text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
        pictures = re.findall(r"!\[[^]]{10,}\]\(([^)]+\.png)\)", text)
        assert pictures, page
        for picture in pictures:
            assert (ROOT / "docs" / picture).stat().st_size < 150_000
