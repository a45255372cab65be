"""The container file: nobody's root, nothing from the network, the commands exist.

There is no container tool in CI; docs/install.md says how a build was tried by hand.
"""

import re
from pathlib import Path

from node.cli.main import main
from node.config.model import NodeSection
from node.tls import DEFAULT_PORT

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Containerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, rest) with continued lines joined and comments left out."""
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]  # type: ignore[misc] # two words


def last(name: str) -> str:
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def test_it_ends_as_an_unprivileged_user_before_anything_runs() -> None:
    names = [name for name, _ in instructions()]

    assert last("USER") == "rtnode"
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]


def test_it_takes_only_wheels_with_a_known_hash() -> None:
    sources = [rest for name, rest in instructions() if name in ("COPY", "ADD")]
    installs = [rest for name, rest in instructions() if "pip install" in rest]

    assert sources == ["wheelhouse /wheelhouse", "--from=build /opt/rtnode /opt/rtnode"]
    assert all("--no-index" in rest and "sha256sum --check" in rest for rest in installs)
    assert not re.search(r"curl|wget|apt-get|https?://", TEXT)
    assert (ROOT / ".dockerignore").read_text().split() == ["*", "!wheelhouse"]


def test_the_commands_in_it_exist() -> None:
    assert last("ENTRYPOINT") == '["rtnode"]'
    (command,) = re.findall(r'\["([a-z]+)"\]', last("CMD"))
    (health,) = re.findall(r"CMD rtnode ([a-z]+)", last("HEALTHCHECK"))
    assert {command, health} <= set(main.commands)
    assert last("STOPSIGNAL") == "SIGTERM"


def test_ports_and_volume_are_those_of_the_defaults() -> None:
    ports = last("EXPOSE").split()

    assert ports[:2] == [str(NodeSection.model_fields["port"].default), str(DEFAULT_PORT)]
    assert last("VOLUME") == '["/var/lib/rtnode"]'
    assert "RTNODE_CONFIG=/etc/rtnode/config.yaml" in TEXT


def test_the_base_image_is_the_python_of_the_project_and_named_whole() -> None:
    images = {rest.split()[0] for name, rest in instructions() if name == "FROM"}

    assert images == {"docker.io/library/python:3.11-slim-bookworm"}
