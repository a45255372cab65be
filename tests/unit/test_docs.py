"""The documents tell the truth: commands exist, configuration loads, tables are the code's."""

import ast
import configparser
import re
import tomllib
from pathlib import Path

import pytest

from node.cli.main import main
from node.config.load import load

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "README.ja.md",
    "CONTRIBUTING.md",
    "CONFORMANCE.md",
    "CHANGELOG.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(text("README.md").splitlines()) <= 150


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_that_a_document_names_exists(name: str) -> None:
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", text(name), re.MULTILINE))

    assert named <= targets()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_a_document_names_exists(name: str) -> None:
    named = set(re.findall(r"`(?:\.venv/bin/)?rtnode ([a-z][a-z-]+)", text(name)))
    named |= set(re.findall(r"^\.venv/bin/rtnode ([a-z-]+)", text(name), re.MULTILINE))

    assert named <= set(main.commands)


def test_the_readme_names_every_command() -> None:
    named = set(re.findall(r"`rtnode ([a-z-]+)[ `]", text("README.md")))

    assert named == set(main.commands)


def test_every_finding_is_explained_to_the_operator() -> None:
    codes = {
        str(keyword.value.value)
        for path in (ROOT / "pipelines").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    page = text("docs/operations.md")

    assert len(codes) > 20
    assert [code for code in sorted(codes) if f"`{code}`" not in page] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_to_a_file_leads_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", text(name))

    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []


def test_the_configuration_of_the_readme_loads(tmp_path: Path) -> None:
    found = re.search(r"```yaml\n(.*?)```", text("README.md"), re.DOTALL)
    assert found is not None
    path = tmp_path / "config.yaml"
    path.write_text(found[1], encoding="utf-8")

    config = load(path)

    pipelines = [route.pipeline for route in config.routes]
    assert pipelines == ["autocontour", "synthetic_ct", "dose_radiomics"]


def test_locks_pin_every_dependency_with_hashes_and_name_no_index() -> None:
    project = tomllib.loads(text("pyproject.toml"))
    listed = project["project"]["dependencies"]
    extra = project["project"]["optional-dependencies"]["dev"]

    driver = project["project"]["optional-dependencies"]["postgresql"]
    for lock, requirements in (("run", [*listed, *driver]), ("dev", [*listed, *extra])):
        content = text(f"requirements/{lock}.lock")
        pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", content, re.MULTILINE))
        names = {re.split(r"[^A-Za-z0-9._-]", r)[0].lower().replace(".", "-") for r in requirements}
        assert names - {"torch"} <= set(pinned)
        assert "torch" not in pinned
        assert len(re.findall(r"--hash=sha256:", content)) >= len(pinned)
        assert "://" not in content


def test_the_makefile_installs_the_torch_that_the_project_pins() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]["dependencies"]

    assert "torch==2.13.0" in project
    assert "torch==" in text("Makefile")


def test_the_service_runs_a_command_that_exists_and_gives_up_no_protection() -> None:
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign] # systemd keys have case
    unit.read_string(text("systemd/rtnode.service"))
    service = unit["Service"]

    assert service["ExecStart"].split()[1] in main.commands
    for switch in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces"):
        assert service[switch] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert int(service["TimeoutStopSec"]) >= 60
    assert (service["Type"], service["WatchdogSec"]) == ("notify", "60")


def test_the_licence_is_apache_2() -> None:
    assert "Apache License" in text("LICENSE")
    assert "Version 2.0, January 2004" in text("LICENSE")
