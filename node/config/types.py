"""Field types that the configuration models share: AE titles, paths, networks, frozen maps."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
)

from node.domain import AETitle
from node.tls import identity

BASE_FOLDER: Final = "base"
"""Key of the validation context that holds the folder relative paths start from."""

_AE_TITLE_LENGTH: Final = 16
"""Characters of an AE title (PS3.5 6.2)."""
_NAME: Final = "[a-z0-9][a-z0-9_-]{0,31}"


class Section(BaseModel):
    """Base of every part of the configuration: strict, frozen, no unknown key."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


def _ae_title(value: str) -> str:
    if not 1 <= len(value) <= _AE_TITLE_LENGTH:
        raise ValueError(f"an AE title has 1 to 16 characters, this has {len(value)} (PS3.5 6.2)")
    if value != value.strip():
        raise ValueError("an AE title starts and ends without a space")
    if "\\" in value or not all(" " <= character <= "~" for character in value):
        raise ValueError("an AE title holds printable ASCII without a backslash (PS3.5 6.2)")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError(
            f"{value!r} is no name: lower-case letters, digits, - and _, at most 32 characters"
        )
    return value


def _absolute(value: Path, info: ValidationInfo) -> Path:
    base = (info.context or {}).get(BASE_FOLDER)
    path = value.expanduser()
    return path if base is None else Path(base) / path


def _network(value: object) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        said = f"{error}; " if isinstance(value, str) else ""
        raise ValueError(
            f"{said}write an address or a network as text, for example 192.0.2.0/24"
        ) from None


K = TypeVar("K")
V = TypeVar("V")

AETitleText: TypeAlias = Annotated[AETitle, AfterValidator(_ae_title)]
"""An AE title, checked (PS3.5 6.2)."""
Name: TypeAlias = Annotated[str, AfterValidator(_name)]
"""Lower-case letters, digits, ``-`` and ``_``, at most 32: it appears in logs and file names."""
ConfigPath: TypeAlias = Annotated[Path, AfterValidator(_absolute)]
"""A path; a relative one starts at the folder of the configuration file."""
Network: TypeAlias = Annotated[
    ipaddress.IPv4Network | ipaddress.IPv6Network,
    PlainValidator(_network),
    PlainSerializer(str),
]
"""An IP address or network in CIDR notation."""
TlsIdentity: TypeAlias = Annotated[str, AfterValidator(identity)]
"""What a certificate must be: fingerprint, common name or name it was issued for."""
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400)]
FrozenMap: TypeAlias = Annotated[
    Mapping[K, V], AfterValidator(MappingProxyType), PlainSerializer(dict)
]
"""A mapping that nobody can change after loading."""
