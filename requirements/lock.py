"""Write the lock files: every dependency with its hashes, except torch.

torch is left out because its wheel depends on the machine (the CPU build and the CUDA builds have
other files and other hashes under one version); `make setup` installs the version that
pyproject.toml pins, after everything here. What the CPU build needs is locked by name below.
Run by `make lock`; needs `uv` in the environment that runs it, and no other tool.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH_NEEDS = (
    "filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions",
)  # fmt: skip
HEAD = """\
# Locked with hashes by `make lock` for CPython 3.11 on Linux; do not edit.
# torch is not here: its wheel differs from machine to machine (see requirements/lock.py).
"""


def compile_lock(requirements: list[str], output: Path) -> None:
    """Resolve `requirements` and write `output`."""
    command = [
        "uv", "pip", "compile", "-", "--generate-hashes", "--python-version", "3.11",
        "--python-platform", "x86_64-manylinux_2_28", "--no-header", "--no-annotate", "--quiet",
        "--no-emit-index-url", "--no-emit-find-links", "--upgrade", "--allow-unsafe",
    ]  # fmt: skip
    done = subprocess.run(
        command, input="\n".join(requirements), text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(done.stderr)
    output.write_text(HEAD + done.stdout, encoding="utf-8")


def main() -> None:
    """Write ``run.lock`` (what a node needs) and ``dev.lock`` (with tests and checks)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    build = project["build-system"]["requires"]
    listed = project["project"]["dependencies"]
    runtime = [r for r in listed if not re.match(r"torch\b", r)] + list(TORCH_NEEDS) + build
    extra = project["project"]["optional-dependencies"]
    # the driver of PostgreSQL is small: what is installed offline must be able to use it
    compile_lock(runtime + extra["postgresql"], ROOT / "requirements" / "run.lock")
    compile_lock(runtime + extra["dev"], ROOT / "requirements" / "dev.lock")


if __name__ == "__main__":
    main()
