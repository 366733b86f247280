"""Every way in which a runtime breaks is a typed failure, and the next measurement works."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from faulty_runtime import HELD_BYTES

from device_bench.commands import Baseline, Job, Measure, Open, Opened, Peak, Readings, Round, RoundSamples
from device_bench.isolation import Child, Stop, stopped_by
from device_bench.local import compare, measure
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Limits,
    Measurement,
    Rounds,
    TimingPolicy,
)

Make = Callable[..., BenchRequest]


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        ("segfault", FailureKind.CRASHED, "SIGSEGV"),
        ("abort", FailureKind.CRASHED, "libfaulty: assertion failed"),
        ("exit", FailureKind.CRASHED, "exit code 7"),
        ("bad_alloc", FailureKind.OUT_OF_MEMORY, "bad_alloc"),
        ("killed", FailureKind.OUT_OF_MEMORY, "SIGKILL"),
        ("no_room", FailureKind.OUT_OF_MEMORY, "MemoryError"),
        ("alarm", FailureKind.TIMED_OUT, "ended itself"),
        ("memory", FailureKind.OUT_OF_MEMORY, "no room for 1 TiB"),
        ("refuse", FailureKind.UNSUPPORTED, "operator Foo is unknown"),
        ("raise", FailureKind.RUNTIME_ERROR, "disk on fire"),
    ],
)
def test_a_broken_run_is_a_typed_failure(faulty: Make, behaviour: str, kind: FailureKind, words: str) -> None:
    found = measure(faulty(behaviour))
    assert isinstance(found, Failure)
    assert (found.kind, words in found.message) == (kind, True), found.message


def test_last_words_are_not_those_that_only_inform(faulty: Make) -> None:
    found = measure(faulty("chatter"))
    assert isinstance(found, Failure) and found.kind is FailureKind.CRASHED
    assert found.message.endswith("it last wrote: libfaulty: the end")


def test_a_hang_ends_at_the_wall_limit(faulty: Make) -> None:
    found = measure(faulty("hang", wall_seconds=1.5))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TIMED_OUT
    assert "1.5 s" in found.message


def test_processor_time_is_limited(faulty: Make, tmp_path: Path) -> None:
    module = tmp_path / "busy_runtime.py"
    module.write_text("def version():\n    while True: pass\n")
    os.environ["PYTHONPATH"] = str(tmp_path)  # undone with the fixture's own change
    with Child("busy_runtime", Limits(cpu_seconds=1, wall_seconds=60)) as child:
        found = child.ask(Baseline(), Peak)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.TIMED_OUT
    assert "1 s of processor time" in found.message


def test_a_childs_children_die_with_it(faulty: Make, tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    found = measure(faulty(f"breed {note}"))
    assert isinstance(found, Failure) and found.kind is FailureKind.CRASHED
    _, alive = psutil.wait_procs(_processes(int(note.read_text())), timeout=10)
    assert alive == []


def test_more_than_the_address_space_is_out_of_memory(faulty: Make) -> None:
    limits = Limits(address_space_bytes=16 << 30)
    found = measure(faulty(f"greed {32 << 30}").model_copy(update={"limits": limits}))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.OUT_OF_MEMORY


def test_noise_on_standard_output_is_no_answer(faulty: Make) -> None:
    found = measure(faulty("noise"))
    assert isinstance(found, Measurement)


def test_peak_memory_is_the_models_alone(faulty: Make) -> None:
    ballast = np.ones(200 << 20, dtype=np.uint8)  # ours, so no part of the child's figures
    plain, held = measure(faulty("work")), measure(faulty("hold"))
    assert isinstance(plain, Measurement) and isinstance(held, Measurement)
    assert plain.memory.peak_bytes < 8 << 20
    assert (
        any("within the noise" in warning for warning in plain.warnings) or plain.memory.peak_bytes >= 1 << 18
    )
    assert HELD_BYTES <= held.memory.peak_bytes < HELD_BYTES + (8 << 20)
    assert ballast.size == 200 << 20


def test_what_the_runtime_tells_is_passed_on(faulty: Make) -> None:
    found = measure(faulty("work"))
    assert isinstance(found, Measurement)
    assert found.memory.arena_bytes == 1234
    conditions = found.conditions
    assert (conditions.delegated_operators, conditions.undelegated_operators) == (3, 1)
    assert [(place.where, place.count) for place in conditions.placements] == [
        ("Fault", 3),
        ("plain kernels", 1),
    ]
    assert "the faulty runtime measured this" in found.warnings
    assert conditions.runtime_version == "0.0-faulty"
    assert len(found.samples_ns) == found.latency.samples >= 8
    assert found.latency.min_ms >= 1.0  # it sleeps a millisecond
    assert Measurement.model_validate_json(found.model_dump_json()) == found


def test_rounds_interleave_and_never_overlap(faulty: Make, tmp_path: Path) -> None:
    log = tmp_path / "runs.log"
    found = compare(faulty(f"log {log}"), faulty(f"log {log}"), Rounds(count=3, seconds=0.02))
    assert isinstance(found, Comparison)
    assert found.rounds == 3
    assert found.low <= found.speedup <= found.high
    runs = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert all(end <= start for (_, _, end), (_, start, _) in itertools.pairwise(runs))
    order = [pid for i, (pid, _, _) in enumerate(runs) if i == 0 or runs[i - 1][0] != pid]
    one, other = order[0], order[1]
    # Each warms up; then A B, B A, A B, where equal neighbours run into one.
    assert order == [one, other, one, other, one, other]


def test_comparison_names_the_file_that_failed(faulty: Make) -> None:
    found = compare(faulty("work"), faulty("segfault"), Rounds(count=1, seconds=0.01))
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.CRASHED
    assert "segfault-" in found.message


def test_a_round_before_a_model_is_refused(faulty: Make) -> None:
    with Child("faulty_runtime", Limits()) as child:
        found = child.ask(Round(seconds=0.01), RoundSamples)
        assert isinstance(found, Failure) and "before a model" in found.message
        assert isinstance(child.ask(Baseline(), Peak), Peak)


def test_another_thread_stops_it(faulty: Make, tmp_path: Path) -> None:
    log = tmp_path / "runs.log"
    request = faulty(f"log {log}")
    endless = request.model_copy(update={"timing": TimingPolicy(min_seconds=600, max_seconds=600)})
    failure = Failure(kind=FailureKind.CANCELLED, message="nobody waits for it")

    def run(stop: Stop) -> Measurement | Failure:
        with stopped_by(stop):
            return measure(endless)

    with Stop() as stop, ThreadPoolExecutor(1) as pool:
        found = pool.submit(run, stop)
        while not log.exists() and not found.done():
            time.sleep(0.01)
        stop.say(failure)
        assert found.result(timeout=60) == failure
        assert run(stop) == failure
    assert not psutil.pid_exists(int(log.read_text().split()[0]))


def test_a_dead_child_stays_dead(faulty: Make) -> None:
    with Child("faulty_runtime", Limits()) as child:
        for _ in range(2):
            found = child.ask(Measure(request=faulty("segfault")), Readings)
            assert isinstance(found, Failure) and found.kind is FailureKind.CRASHED


def test_an_error_of_the_caller_leaves_no_process(faulty: Make) -> None:
    before = {process.pid for process in psutil.Process().children()}
    with pytest.raises(KeyboardInterrupt), Child("faulty_runtime", Limits()) as child:
        child.ask(Open(request=faulty("work")), Opened)
        raise KeyboardInterrupt
    assert {process.pid for process in psutil.Process().children()} <= before


def test_a_child_outside_a_with_statement_says_so() -> None:
    child = Child("faulty_runtime", Limits())
    with pytest.raises(RuntimeError, match="with"):
        child.ask(Baseline(), Peak)
    child._errors.close()


def test_job_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="extra"):
        Job.model_validate({"module": "m", "colour": "red"})


def _processes(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return []
