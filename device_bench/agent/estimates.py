"""About how long jobs will take, for clients that are told when to come back."""

from __future__ import annotations

from device_bench.wire import CompareJob, Job, MeasureJob

# What a measurement takes beside warming up and sampling, and what a job takes whose length nobody told.
_START_SECONDS = 0.5
_UNKNOWN_SECONDS = 5.0


def expected_seconds(job: Job) -> float:
    """What a job asks for, starting its processes included."""
    match job:
        case MeasureJob(request=request):
            timing = request.timing
            return _START_SECONDS + timing.warmup_seconds + min(timing.min_seconds, timing.max_seconds)
        case CompareJob(first=first, second=second, rounds=rounds):
            warm = first.timing.warmup_seconds + second.timing.warmup_seconds
            return 2 * _START_SECONDS + warm + 2 * rounds.count * rounds.seconds
        case _:
            return _UNKNOWN_SECONDS
