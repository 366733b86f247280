"""Warms a model up and times it, with the clock passed in.

The loop holds nothing but two clock reads, the call and an append to an array of machine integers, so the
median is that of a bare loop down to models of a few microseconds. The garbage collector is off meanwhile.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from device_bench.protocol import TimingPolicy

Clock = Callable[[], int]
Run = Callable[[], object]
# A run that times itself, in ns.
TimedRun = Callable[[], int]

# Two stretches of a warm-up whose medians differ by less are taken as the same speed.
STABLE_WITHIN = 0.05
# A warm-up that does not become stable is given up after this many times its planned length.
_LONGEST_WARMUP = 4
# Fewer runs than this cannot be split into two stretches worth comparing.
_FEWEST_TO_JUDGE = 8
# After another process had the core, caches are cold: this part of a round is not counted.
_COLD_PART = 0.1

default_clock: Clock = time.perf_counter_ns


def clock_resolution_ns(clock: Clock, readings: int = 2000) -> float | None:
    """The smallest step seen between readings of the clock, in ns.

    Back-to-back readings are compared, as pytest-benchmark's `compute_timer_precision` does; the figure
    includes the cost of reading. None if the clock never moved within `readings` readings.
    """
    smallest: int | None = None
    for _ in range(readings):
        before = clock()
        step = clock() - before
        if step > 0 and (smallest is None or step < smallest):
            smallest = step
    return None if smallest is None else float(smallest)


def warm_up(run: Run, policy: TimingPolicy, clock: Clock) -> bool:
    """Run until the policy's warm-up is over and the speed is stable.

    Stable: the medians of the last quarter of the runs and of the quarter before it differ by less than
    `STABLE_WITHIN`. Looked at when the planned warm-up ends, then every half of its length, up to
    `_LONGEST_WARMUP` times its length.

    Returns:
        Whether it became stable. Fewer than `_FEWEST_TO_JUDGE` runs are not judged and count as stable.
    """
    length_ns = round(policy.warmup_seconds * 1e9)
    start = clock()
    durations = array("q")
    with _collector_off():
        for _ in range(policy.warmup_runs):
            _time_once(run, clock, durations)
        stop = start + length_ns
        while True:
            while clock() < stop:
                _time_once(run, clock, durations)
            if _is_stable(durations):
                return True
            stop += length_ns // 2
            if length_ns == 0 or stop > start + _LONGEST_WARMUP * length_ns:
                return False


def sample(run: Run, policy: TimingPolicy, clock: Clock) -> array[int]:
    """Durations in ns of single runs: at least the policy's samples and seconds, never past its maximum.

    At least one sample is taken, however long it lasts.
    """
    least_ns = round(policy.min_seconds * 1e9)
    most_ns = round(policy.max_seconds * 1e9)
    fewest = policy.min_samples
    durations = array("q")
    append = durations.append
    with _collector_off():
        start = clock()
        while True:
            before = clock()
            run()
            after = clock()
            append(after - before)
            elapsed = after - start
            if elapsed >= most_ns or (elapsed >= least_ns and len(durations) >= fewest):
                return durations


def sample_round(run: Run, seconds: float, clock: Clock) -> array[int]:
    """Durations in ns of the runs of one round of a comparison.

    The first run, and what else falls in the first tenth of the round, only brings the caches back.
    """
    start = clock()
    cold_until = start + round(seconds * _COLD_PART * 1e9)
    stop = start + round(seconds * 1e9)
    durations = array("q")
    append = durations.append
    with _collector_off():
        run()
        while clock() < cold_until:
            run()
        while True:
            before = clock()
            run()
            after = clock()
            append(after - before)
            if after >= stop:
                return durations


def sample_timed(run: TimedRun, policy: TimingPolicy, clock: Clock) -> array[int]:
    """As `sample`, for a model that times itself: the clock only tells when to end."""
    least_ns = round(policy.min_seconds * 1e9)
    most_ns = round(policy.max_seconds * 1e9)
    durations = array("q")
    with _collector_off():
        start = clock()
        while True:
            durations.append(run())
            elapsed = clock() - start
            if elapsed >= most_ns or (elapsed >= least_ns and len(durations) >= policy.min_samples):
                return durations


def sample_round_timed(run: TimedRun, seconds: float, clock: Clock) -> array[int]:
    """As `sample_round`, for a model that times itself."""
    start = clock()
    cold_until = start + round(seconds * _COLD_PART * 1e9)
    stop = start + round(seconds * 1e9)
    durations = array("q")
    with _collector_off():
        run()
        while clock() < cold_until:
            run()
        while True:
            durations.append(run())
            if clock() >= stop:
                return durations


def _time_once(run: Run, clock: Clock, durations: array[int]) -> None:
    before = clock()
    run()
    durations.append(clock() - before)


def _is_stable(durations: array[int]) -> bool:
    if len(durations) < _FEWEST_TO_JUDGE:
        return True
    quarter = len(durations) // 4
    last = _median(durations[-quarter:])
    before = _median(durations[-2 * quarter : -quarter])
    return abs(last - before) <= STABLE_WITHIN * before


def _median(durations: array[int]) -> float:
    # Through numpy, which needs 8 bytes a value: a list of Python integers would show in the peak memory.
    return float(np.median(np.frombuffer(durations, dtype=np.int64)))


@contextmanager
def _collector_off() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
