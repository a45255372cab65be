"""Layers and weights: who may import whom, by the checker and in a fresh interpreter."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "SimpleITK", "highdicom", "matplotlib", "scipy")


def test_the_layers_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", ["node.service", "node.cli.main", "pipelines.catalog"])
def test_what_acknowledges_loads_no_image_or_learning_library(module: str) -> None:
    """The checker cannot see what third parties import; a fresh interpreter can."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == ""


@pytest.mark.parametrize("package", ["node", "pipelines", "models", "demo"])
def test_package_files_are_empty(package: str) -> None:
    """The checker does not count what ``__init__.py`` imports."""
    filled = [p for p in (ROOT / package).rglob("__init__.py") if p.stat().st_size]

    assert filled == []


def test_only_the_store_renames_files() -> None:
    """Ruff sees os.rename and os.replace, not the methods of Path."""
    renaming = re.compile(
        r"\b(?:path|part|file|temporary|target|tmp)\w*\.(?:rename|replace)\(", re.I
    )
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for package in ("node", "pipelines")
        for path in (ROOT / package).rglob("*.py")
        if (ROOT / "node" / "store") not in path.parents
        for line in path.read_text(encoding="utf-8").splitlines()
        if renaming.search(line)
    ]

    assert found == []
