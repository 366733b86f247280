"""Timing against a clock that only moves when it is told to."""

from __future__ import annotations

import gc

import pytest

from device_bench.protocol import TimingPolicy
from device_bench.timing import (
    clock_resolution_ns,
    sample,
    sample_round,
    sample_round_timed,
    sample_timed,
    warm_up,
)

MS = 1_000_000


class Machine:
    """A clock, and a model that takes `durations_ms` in turn (the last one for ever)."""

    def __init__(self, *durations_ms: float) -> None:
        self.now = 1_000
        self.durations = [round(d * MS) for d in durations_ms]
        self.runs = 0

    def clock(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += self.durations[min(self.runs, len(self.durations) - 1)]
        self.runs += 1


def policy(**changes: float) -> TimingPolicy:
    fields = {
        "warmup_runs": 1,
        "warmup_seconds": 0.5,
        "min_samples": 64,
        "min_seconds": 1.0,
        "max_seconds": 60.0,
    }
    return TimingPolicy.model_validate({**fields, **changes})


def test_samples_are_the_durations_in_order() -> None:
    machine = Machine(1, 2, 3)
    samples = sample(machine.run, policy(min_samples=5, min_seconds=0), machine.clock)
    assert list(samples) == [1 * MS, 2 * MS, 3 * MS, 3 * MS, 3 * MS]


@pytest.mark.parametrize(
    ("duration_ms", "expected"),
    [(1.0, 1000), (100.0, 64), (1000.0, 60), (90_000.0, 1)],
    ids=["a second is the least", "64 samples are the least", "60 s are the most", "one sample always"],
)
def test_sampling_ends_by_the_policy(duration_ms: float, expected: int) -> None:
    machine = Machine(duration_ms)
    assert len(sample(machine.run, policy(), machine.clock)) == expected


def test_warm_up_lasts_its_time_and_runs() -> None:
    machine = Machine(10)
    assert warm_up(machine.run, policy(), machine.clock)
    assert machine.runs == 50
    machine = Machine(10)
    assert warm_up(machine.run, policy(warmup_runs=70), machine.clock)
    assert machine.runs == 70


def test_warm_up_goes_on_until_the_speed_is_stable() -> None:
    # 45 slow runs: when the planned 0.5 s end, the last quarter differs from the one before.
    machine = Machine(*[10.0] * 45, 5.0)
    assert warm_up(machine.run, policy(), machine.clock)
    assert machine.now > 1_000 + 500 * MS
    assert machine.runs > 55


def test_warm_up_gives_up_and_says_so() -> None:
    machine = Machine(*[1.02**i for i in range(1000)])
    assert not warm_up(machine.run, policy(), machine.clock)
    assert machine.now < 1_000 + 2_500 * MS


def test_warm_up_of_no_length_does_not_loop() -> None:
    machine = Machine(*[2.0**i for i in range(40)])
    assert not warm_up(machine.run, policy(warmup_runs=16, warmup_seconds=0), machine.clock)
    assert machine.runs == 16


def test_round_leaves_out_its_cold_part() -> None:
    machine = Machine(50, 10)
    samples = sample_round(machine.run, 0.2, machine.clock)
    # 50 ms cold are past the first tenth (20 ms) already; 15 runs of 10 ms fill the rest.
    assert list(samples) == [10 * MS] * 15


def test_round_has_a_sample_though_a_run_is_longer_than_the_round() -> None:
    machine = Machine(500)
    assert list(sample_round(machine.run, 0.2, machine.clock)) == [500 * MS]


def test_resolution_is_the_smallest_step() -> None:
    readings = iter([0, 0, 0, 30, 30, 50, 50, 90])
    assert clock_resolution_ns(lambda: next(readings), readings=4) == 20.0


def test_resolution_of_a_clock_that_stands() -> None:
    assert clock_resolution_ns(lambda: 5) is None


def test_the_collector_is_off_while_sampling_and_on_after() -> None:
    seen: list[bool] = []
    machine = Machine(1)

    def run() -> None:
        seen.append(gc.isenabled())
        machine.run()

    assert gc.isenabled()
    sample(run, policy(min_samples=3, min_seconds=0), machine.clock)
    assert seen == [False] * 3
    assert gc.isenabled()


class OwnClock:
    """A model that says 5 µs for runs that take 10 µs by the clock."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.runs = 0

    def clock(self) -> int:
        return self.now_ns

    def timed_invoke(self) -> int:
        self.runs += 1
        self.now_ns += 10_000
        return 5_000


@pytest.mark.parametrize(
    ("least", "most_seconds", "runs"), [(64, 1.0, 100), (200, 1.0, 200), (200, 0.0015, 150)]
)
def test_a_model_that_times_itself_is_believed(least: int, most_seconds: float, runs: int) -> None:
    model = OwnClock()
    policy = TimingPolicy(min_samples=least, min_seconds=0.001, max_seconds=most_seconds)
    durations = sample_timed(model.timed_invoke, policy, model.clock)
    assert len(durations) == model.runs == runs
    assert set(durations) == {5_000}


def test_a_round_of_it_begins_cold_too() -> None:
    model = OwnClock()
    durations = sample_round_timed(model.timed_invoke, 0.001, model.clock)
    assert model.runs == 100 and len(durations) == 90
