"""One released artifact measured on one device: what a fleet's history consists of."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pydantic import Field

from device_bench.protocol import Comparison, Measurement, Record, RuntimeName


class Watched(Record):
    """What a history is of: an artifact on a device, used in one way.

    `release`: its name; `sha256`: of the file, since a name may be released again with another one.
    """

    release: str
    sha256: str
    device: str
    runtime: RuntimeName
    accelerator: str = "cpu"
    threads: int = 1


class FleetMeasurement(Record):
    """One visit of the fleet benchmark to one watched artifact.

    `round_id`: of the benchmark's round, so that a round that was killed goes on without measuring again.
    `measurement`: of the artifact alone, with some of its raw samples. `beside_reference`: the artifact as
    first and a model that never changes as second, in interleaved rounds: their ratio stays where the
    machine's own pace drifts. `reference_sha256`: of that model.
    """

    watched: Watched
    round_id: str
    measured_at: datetime
    measurement: Measurement
    beside_reference: Comparison
    reference_sha256: str

    @property
    def cost(self) -> float:
        """The artifact's latency as a multiple of the reference's."""
        return self.beside_reference.speedup


class Acceptance(Record):
    """Somebody's word that a new level is right: what was measured before no longer counts."""

    watched: Watched
    accepted_at: datetime
    note: str = Field(default="", max_length=1000)


class History(Protocol):
    """Where visits are kept. `pipeline.experience` has one in its database."""

    def add(self, visit: FleetMeasurement) -> None:
        """Keep a visit; one of the same round and watched artifact is kept once."""
        ...

    def visits(self, watched: Watched, last: int | None = None) -> tuple[FleetMeasurement, ...]:
        """Every visit, or so many of the last ones; the oldest first."""
        ...

    def accept(self, acceptance: Acceptance) -> None:
        """Let a history begin anew."""
        ...

    def accepted_at(self, watched: Watched) -> datetime | None:
        """When somebody last accepted a new level."""
        ...
