"""Settings written on the command line."""

import pytest
from pydantic import BaseModel, ConfigDict

from node.config.overrides import settings_from
from node.errors import ConfigError


class Inner(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    size_mm: float = 1.0


class Settings(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
    bins: int = 32
    name: str = "x"
    levels: tuple[float, ...] = ()
    fast: bool = False
    inner: Inner = Inner()


def test_numbers_lists_and_booleans_are_read_as_what_they_are() -> None:
    settings = settings_from(
        Settings, {"bins": "64", "levels": "[1, 2.5]", "fast": "true", "inner.size_mm": "3"}
    )

    assert settings == Settings(bins=64, levels=(1.0, 2.5), fast=True, inner=Inner(size_mm=3.0))


@pytest.mark.parametrize("text", ["5", "true", "plain", "1.10"])
def test_a_text_setting_takes_any_text_as_it_is_written(text: str) -> None:
    assert settings_from(Settings, {"name": text}).name == text


def test_no_override_gives_the_defaults() -> None:
    assert settings_from(Settings, {}) == Settings()


def test_every_wrong_override_is_told_with_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from(Settings, {"binz": "3", "levels": "abc", "inner.size": "1"})

    assert set(caught.value.problems) == {
        "--set binz: not a known key; did you mean 'bins'?",
        "--set levels: needs a list, for example [a, b]",
        "--set inner.size: not a known key; did you mean 'size_mm'?",
    }


def test_a_value_is_not_stepped_into() -> None:
    with pytest.raises(ConfigError, match="'inner' has a value already"):
        settings_from(Settings, {"inner": "3", "inner.size_mm": "1"})
