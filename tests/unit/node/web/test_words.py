"""Every string of the pages is there in Japanese, and none too many."""

import re
from pathlib import Path

from node.drift.chart import MEASURES
from node.lifecycle import DeliveryState, JobState, SeriesState
from node.web import timeline
from node.web.pages import job
from node.web.words import JAPANESE, Words

WEB = Path(__file__).resolve().parents[4] / "node" / "web"
TEXT = re.compile(r"""\bt\(\s*(?:"([^"]+)"|'([^']+)')\s*\)""")


def in_templates() -> set[str]:
    found: set[str] = set()
    for path in (WEB / "templates").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        found |= {a or b for a, b in TEXT.findall(text)}
        found |= {name for _, name in re.findall(r'\("(/\w*)", "(\w+)"\)', text)}
        found |= set(re.findall(r't\("([^"]+)"\) if ', text))
    return found


def said_by_code() -> set[str]:
    titles = {title for title, _ in (*timeline._TITLES.values(), *timeline._DELIVERIES.values())}
    states = {s.value for kind in (JobState, SeriesState, DeliveryState) for s in kind}
    measures = {measure.name for measure in MEASURES.values()}
    return titles | states | measures | set(job._TITLES.values())


def test_every_string_has_a_translation() -> None:
    wanted = in_templates() | said_by_code()

    assert len(wanted) > 150
    assert sorted(wanted - JAPANESE.keys()) == []


def test_the_languages_answer() -> None:
    assert Words("ja")("Jobs") == "ジョブ"
    assert Words("en")("Jobs") == "Jobs"
    assert Words("ja")("a reason of the ledger") == "a reason of the ledger"


def test_no_translation_is_empty_or_english() -> None:
    same = {"HU"}

    assert [e for e, j in JAPANESE.items() if not j or (j == e and e not in same)] == []
