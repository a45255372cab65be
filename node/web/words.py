"""The strings of the page in English and Japanese: one table, English is the key.

Reasons, hints and findings come from the ledger and stay English, as in the log and in the
results: an operator must be able to search for them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

LANGUAGES: Final[Mapping[str, str]] = {"en": "English", "ja": "日本語"}
"""Code -> how speakers call it."""

JAPANESE: Final[Mapping[str, str]] = json.loads(
    Path(__file__).with_name("japanese.json").read_text(encoding="utf-8")
)
"""English -> Japanese."""


class Words:
    """The strings in one language; callable in templates: ``t("Jobs")``."""

    def __init__(self, language: str) -> None:
        self.language = language

    def __call__(self, english: str) -> str:
        """Return the string; one without a translation stays English."""
        return JAPANESE.get(english, english) if self.language == "ja" else english
