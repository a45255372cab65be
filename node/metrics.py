"""The node's numbers in the Prometheus text format, version 0.0.4.

Counts come from the ledger, so they survive restarts and cost the receiving process nothing. No
label holds a UID or anything of a patient: pipelines, states, destinations and codes only.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

from node.config.model import Config
from node.control.live import ask_node
from node.drift.chart import alarms
from node.store.acceptance import ScoreLine
from node.store.ledger import Ledger
from node.store.records import Counts, HeldItem, QueueLine
from node.store.statistics import Statistics
from node.store.volume import DiskState, volume_of

_QUANTILES: Final = (0.5, 0.95)
_HELD_KINDS: Final = ("job", "delivery", "series")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that is told at one moment."""

    running: bool
    troubles: int
    """Parts of the running node that are ill."""
    free_bytes: int
    refusing: bool
    """Too little disk: every object is answered 0xA700."""
    counts: Counts
    statistics: Statistics
    queue: tuple[QueueLine, ...]
    held: tuple[HeldItem, ...]
    scores: tuple[ScoreLine, ...]
    audit_waiting: int
    """Events that the audit server has not got."""
    audit_oldest_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of a metric."""

    value: float
    labels: Mapping[str, str]
    suffix: str = ""
    """Of the metric's name: ``_sum`` and ``_count`` of a summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric and where its values come from."""

    name: str
    kind: str
    """counter, gauge or summary."""
    meaning: str
    samples: Callable[[Snapshot], Iterable[Sample]]


def snapshot(config: Config, ledger: Ledger) -> Snapshot:
    """Ask the ledger, the disk and the running node, if it runs."""
    live = ask_node(config.node.data_dir)
    volume = volume_of(config.node.data_dir, config.storage)
    waiting, since = ledger.audit_backlog() if config.audit is not None else (0, None)
    return Snapshot(
        running=live is not None,
        troubles=len(live.troubles) if live else 0,
        free_bytes=volume.free_bytes,
        refusing=volume.state is DiskState.FULL,
        counts=ledger.counts(),
        statistics=ledger.statistics(),
        queue=tuple(ledger.queue()),
        held=tuple(ledger.held()),
        scores=tuple(ledger.acceptance_scores()),
        audit_waiting=waiting,
        audit_oldest_s=(datetime.now(UTC) - since).total_seconds() if since else 0.0,
    )


def prometheus(now: Snapshot) -> str:
    """Return `now` as the text of a scrape, in the order of `METRICS`."""
    lines: list[str] = []
    for metric in METRICS:
        lines.append(f"# HELP {metric.name} {metric.meaning}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines += [_line(metric.name, sample) for sample in metric.samples(now)]
    return "\n".join(lines) + "\n"


def _line(name: str, sample: Sample) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in sample.labels.items())
    labels = f"{{{shown}}}" if shown else ""
    return f"{name}{sample.suffix}{labels} {float(sample.value):.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _one(value: float) -> list[Sample]:
    return [Sample(value=value, labels={})]


_Counts: TypeAlias = Mapping[str, int] | Mapping[tuple[str, str], int]
_Counts3: TypeAlias = Mapping[tuple[str, str, str], int]


def _by(names: tuple[str, ...], counts: _Counts | _Counts3) -> Iterator[Sample]:
    for key, count in counts.items():
        values = (key,) if isinstance(key, str) else key
        yield Sample(value=count, labels=dict(zip(names, values, strict=True)))


def _held(now: Snapshot) -> Iterator[Sample]:
    """Yield every kind, also those with none: an alert needs a line to look at."""
    counts = Counter(item.kind for item in now.held)
    for kind in (*_HELD_KINDS, *sorted(counts.keys() - set(_HELD_KINDS))):
        yield Sample(value=counts[kind], labels={"kind": kind})


def _approved(now: Snapshot, *, unchanged: bool) -> Iterator[Sample]:
    counts: Counter[tuple[str, str]] = Counter()
    for line in now.scores:
        counts[line.score.model, line.score.organ] += line.score.unchanged or not unchanged
    return _by(("model", "organ"), dict(sorted(counts.items())))


def _durations(now: Snapshot) -> Iterator[Sample]:
    for pipeline, seconds in now.statistics.job_seconds.items():
        for quantile in _QUANTILES:
            place = min(len(seconds) - 1, int(quantile * len(seconds)))
            labels = {"pipeline": pipeline, "quantile": f"{quantile:g}"}
            yield Sample(value=seconds[place], labels=labels)
        yield Sample(value=sum(seconds), labels={"pipeline": pipeline}, suffix="_sum")
        yield Sample(value=len(seconds), labels={"pipeline": pipeline}, suffix="_count")


METRICS: Final = tuple(
    Metric(name=f"rtnode_{name}", kind=kind, meaning=meaning, samples=samples)
    for name, kind, meaning, samples in (
        ("running", "gauge", "1 when the node answers on its control channel",
         lambda now: _one(now.running)),
        ("troubles", "gauge", "Parts of the running node that are ill",
         lambda now: _one(now.troubles)),
        ("disk_free_bytes", "gauge", "Free space on the data volume",
         lambda now: _one(now.free_bytes)),
        ("disk_refusing", "gauge", "1 when low disk makes the node refuse every object",
         lambda now: _one(now.refusing)),
        ("instances_total", "counter", "Objects received and durable",
         lambda now: _one(now.counts.instances)),
        ("conflicts_total", "counter", "Objects with a second content under a known UID",
         lambda now: _one(now.counts.conflicts)),
        ("quarantined_total", "counter", "Objects that could not be understood",
         lambda now: _one(now.counts.quarantined)),
        ("refused_total", "counter", "Objects answered with a failure",
         lambda now: _one(now.statistics.refused)),
        ("associations_total", "counter", "Associations by how they ended",
         lambda now: _by(("end",), now.statistics.associations)),
        ("series", "gauge", "Series by state",
         lambda now: _by(("state",), now.counts.series)),
        ("jobs", "gauge", "Jobs by pipeline and state",
         lambda now: _by(("pipeline", "state"), now.statistics.jobs)),
        ("attempts_failed_total", "counter", "Attempts of jobs that did not finish",
         lambda now: _by(("pipeline",), now.statistics.failed_attempts)),
        ("job_seconds", "summary", "Duration of the attempts that finished in the last 24 hours",
         _durations),
        ("findings_24h", "gauge", "Jobs of the last 24 hours by finding",
         lambda now: _by(("pipeline", "code", "severity"), now.statistics.findings)),
        ("waiting", "gauge", "Jobs by pipeline and deliveries by destination that wait",
         lambda now: [Sample(value=q.waiting, labels={"kind": q.kind, "name": q.name})
                      for q in now.queue]),
        ("oldest_waiting_seconds", "gauge", "Age of the oldest that waits",
         lambda now: [Sample(value=q.oldest_s, labels={"kind": q.kind, "name": q.name})
                      for q in now.queue]),
        ("deliveries", "gauge", "Deliveries by destination and state",
         lambda now: [Sample(value=many, labels={"destination": destination, "state": state})
                      for destination, states in sorted(now.counts.deliveries.items())
                      for state, many in sorted(states.items())]),
        ("held", "gauge", "What needs a person, by kind", _held),
        ("approved_total", "counter", "Approved structures that were held against our draft",
         lambda now: _approved(now, unchanged=False)),
        ("approved_unchanged_total", "counter", "Of these, those that nobody had corrected",
         lambda now: _approved(now, unchanged=True)),
        ("drift_alarms", "gauge", "Organs of a model whose newest score is beyond its limits",
         lambda now: _one(len(alarms(now.scores)))),
        ("audit_waiting", "gauge", "Events that the audit server has not got yet",
         lambda now: _one(now.audit_waiting)),
        ("audit_oldest_seconds", "gauge", "Age of the oldest of these",
         lambda now: _one(now.audit_oldest_s)),
    )
)  # fmt: skip
"""Every metric, in the order of the page; docs/monitoring.md names each."""
