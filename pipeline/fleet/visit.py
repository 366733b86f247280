"""One visit of the fleet benchmark: an artifact alone, and beside a model that never changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from device_bench.bench import Bench, steadiest
from device_bench.protocol import BenchRequest, Failure, Measurement, Rounds, TimingPolicy
from pipeline.fleet.history import FleetMeasurement, Watched
from pipeline.fleet.reference import reference_for
from pipeline.target_bench import ask_again

TIMING = TimingPolicy(warmup_seconds=0.2, min_seconds=0.6, max_seconds=10.0)
ROUNDS = Rounds(count=12, seconds=0.15)
MOST_SAMPLES = 1000


def visit(
    bench: Bench, path: Path, watched: Watched, round_id: str, clock: Callable[[], datetime]
) -> FleetMeasurement | Failure:
    """Measure a released file on the device behind `bench`: once alone, and beside the reference.

    The latter is made again where other work on the device disturbed it, see `steadiest`.

    Args:
        path: the file of `watched`.
        clock: gives the time that is stored.

    Returns:
        What was measured, or why nothing was.

    Raises:
        BadInputError: no reference model runs on that runtime.
    """
    reference = reference_for(watched.runtime)
    request, beside = (
        BenchRequest(
            path=str(file),
            runtime=watched.runtime,
            accelerator=watched.accelerator,
            threads=watched.threads,
            timing=TIMING,
        )
        for file in (path, reference)
    )
    measured = ask_again(lambda: bench.measure(request))
    if isinstance(measured, Failure):
        return measured
    compared = steadiest(lambda: ask_again(lambda: bench.compare(request, beside, ROUNDS)))
    if isinstance(compared, Failure):
        return compared
    return FleetMeasurement(
        watched=watched,
        round_id=round_id,
        measured_at=clock(),
        measurement=thinned(measured),
        beside_reference=compared,
        reference_sha256=hashlib.sha256(reference.read_bytes()).hexdigest(),
    )


def thinned(measured: Measurement) -> Measurement:
    """The same with at most `MOST_SAMPLES` of its raw samples, evenly spaced; its figures are those of all.

    A model of a microsecond gives half a million samples a visit, and a fleet makes thousands of visits a
    day.
    """
    step = -(-len(measured.samples_ns) // MOST_SAMPLES)
    return measured.model_copy(update={"samples_ns": measured.samples_ns[::step]})
