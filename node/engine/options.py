"""How jobs run: limits, times and the worker's command, frozen."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from node.config.model import Config, Limits
from pipelines.api import Json

WORKER: Final = (sys.executable, "-m", "node.worker")
"""The child's command; tests put their own in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How jobs run."""

    limits: Callable[[str], Limits]
    """Time and memory of a pipeline."""
    preload: tuple[str, ...] = ()
    """Pipelines that the routes name: a child is warm when it has loaded them."""
    slots: int = 1
    jobs_per_worker: int = 50
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads that the libraries of one child may use."""
    retry_first_s: float = 5.0
    retry_max_s: float = 300.0
    lease_s: float = 60.0
    start_timeout_s: float = 120.0
    """For a child to load its libraries and say that it is ready."""
    drain_s: float = 30.0
    """How long a running job may go on when the node stops."""
    command: Sequence[str] = WORKER
    profiles: Mapping[str, Json] = field(default_factory=dict)
    """Destination -> what it can import, as the child protocol has it."""

    @classmethod
    def of(cls, config: Config) -> "EngineOptions":
        """Return the options that the configuration describes."""
        section = config.pipelines
        return cls(
            limits=section.limits_for,
            preload=tuple(dict.fromkeys(r.pipeline for r in config.routes if r.enabled)),
            slots=section.workers,
            jobs_per_worker=section.jobs_per_worker,
            threads=max(1, (os.cpu_count() or 1) // section.workers),
            retry_first_s=section.retry_first_s,
            retry_max_s=section.retry_max_s,
            profiles={
                name: profile.model_dump(mode="json")
                for name, profile in config.import_profiles().items()
            },
        )

    def pause_s(self, attempt: int) -> float:
        """Return the pause after a failed attempt; it doubles up to the longest."""
        return min(self.retry_first_s * 2.0 ** (attempt - 1), self.retry_max_s)
