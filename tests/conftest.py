"""Shared fixtures. Missing tools and data skip with the reason; CI forbids such skips."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import postgres_kit

ROOT = Path(__file__).resolve().parent.parent
PACK = ROOT.parent / "shared" / "data" / "dev_pack.tar.xz"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of the store run on the other database."""
    parser.addoption(
        "--database", choices=("sqlite", "postgresql"), default="sqlite",
        help="where `tests.store_kit.store` keeps ledgers; a PostgreSQL server is started",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Start the one server of a run; xdist's workers inherit its URL."""
    if config.getoption("database") == "sqlite" or postgres_kit.ENVIRONMENT in os.environ:
        return
    running = postgres_kit.server()
    try:
        os.environ[postgres_kit.ENVIRONMENT] = running.__enter__().url
    except pytest.skip.Exception as error:
        raise pytest.UsageError(str(error)) from error
    config.add_cleanup(lambda: running.__exit__(None, None, None))


@pytest.fixture(scope="session")
def devpack() -> Path:
    """Return the unpacked development data; it lies outside the project's history.

    ``RTNODE_DEVPACK`` names an unpacked copy; else the archive beside the project is unpacked
    once into the git-ignored ``.cache``.
    """
    if named := os.environ.get("RTNODE_DEVPACK"):
        return Path(named)
    cache = ROOT / ".cache"
    done = cache / "dev_pack" / ".unpacked"
    if not done.exists():
        if not PACK.exists():
            pytest.skip("the development data pack is not on this machine")
        cache.mkdir(exist_ok=True)
        with (cache / "dev_pack.lock").open("w") as lock:  # xdist workers share the cache
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                done.parent.mkdir(exist_ok=True)
                subprocess.run(["tar", "xJf", PACK, "-C", done.parent], check=True)
                done.touch()
    return done.parent


def program(name: str) -> str:
    """Return the path of an installed program, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"missing tool: {name} is not installed")
    return found
