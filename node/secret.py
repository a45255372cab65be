"""Secrets that stand in files: only their owner, and a group that may read, may open them."""

import stat
from pathlib import Path
from typing import Final

from node.errors import ConfigError

_FORBIDDEN: Final = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
"""Nothing for others, at most reading for the group: ``root:rtnode 0640`` is common."""


def open_to_others(path: Path) -> str:
    """Return what is wrong with the permissions of a secret file; empty if nothing is.

    Raises
    ------
    OSError
        The file cannot be looked at.
    """
    mode = path.stat().st_mode
    if not mode & _FORBIDDEN:
        return ""
    return f"{path} is open to others (mode {stat.S_IMODE(mode):04o}); chmod 0600"


def read_secret(key: str, path: Path) -> str:
    """Return the first line of a file that nobody else may read.

    Parameters
    ----------
    key
        Of the configuration, for the message.

    Raises
    ------
    ConfigError
        It cannot be read, is empty, or is open to others.
    """
    try:
        if wrong := open_to_others(path):
            raise ConfigError([f"{key}: {wrong}"])
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError([f"{key}: cannot read {path}"]) from error
    if not lines or not lines[0].strip():
        raise ConfigError([f"{key}: {path} is empty"])
    return lines[0].strip()
