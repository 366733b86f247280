"""The line of jobs: one at a time, leases by a clock that the test moves, nothing ends in silence."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from device_bench.agent.jobs import JobQueue
from device_bench.agent.ledger import Ledger
from device_bench.agent.refusals import Refused
from device_bench.agent.settings import AgentLimits
from device_bench.errors import RunError
from device_bench.isolation import Stop
from device_bench.protocol import Failure, FailureKind
from device_bench.wire import Job, JobState, JobStatus, MeasureJob, Outcome, RemoteRequest

# Generous: only a bug makes a test wait that long.
PATIENCE_SECONDS = 30.0
DONE = Failure(kind=FailureKind.UNSUPPORTED, message="the outcome of the fake runner")


@dataclass
class Clock:
    """Monotonic seconds, moved by the test."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeRunner:
    """Runs a job until `go` is set or it is stopped. Notes what ran, and whether two ran at once."""

    go: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    ran: list[int] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    held: list[int] = field(default_factory=list)
    error: Exception | None = None
    missing: bool = False

    def hold(self, job: Job) -> None:
        if self.missing:
            raise Refused(404, "no_artifact", "upload it")
        self.held.append(seed_of(job))

    def release(self, job: Job) -> None:
        self.held.remove(seed_of(job))

    def run(self, job: Job, stop: Stop) -> Outcome:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.ran.append(seed_of(job))
        self.started.set()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not self.go.wait(0.002) and stop.failure is None:
            assert time.monotonic() < give_up
        self.at_once -= 1
        if self.error is not None:
            raise self.error
        return DONE

    def finish(self, outcome: Outcome) -> Outcome:
        return outcome


def job_of(seed: int) -> MeasureJob:
    return MeasureJob(request=RemoteRequest(runtime="onnxruntime", sha256="0" * 64, seed=seed))


def seed_of(job: Job) -> int:
    assert isinstance(job, MeasureJob)
    return job.request.seed


def id_of(number: int) -> str:
    return f"{number:032x}"


@dataclass
class Line:
    """A queue with all that is fake around it."""

    queue: JobQueue
    runner: FakeRunner
    clock: Clock
    limits: AgentLimits

    def submit(self, number: int) -> JobStatus:
        return self.queue.submit(id_of(number), job_of(number))

    async def running(self, number: int) -> None:
        """Submit a job and wait until it runs."""
        self.runner.started.clear()
        self.submit(number)
        await asyncio.to_thread(self.runner.started.wait, PATIENCE_SECONDS)
        assert self.runner.ran[-1] == number

    async def outcome(self, number: int) -> Outcome:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (status := await self.queue.wait(id_of(number), 1)).state is not JobState.DONE:
                pass
        assert status.outcome is not None
        return status.outcome

    async def failure(self, number: int) -> FailureKind:
        outcome = await self.outcome(number)
        assert isinstance(outcome, Failure)
        return outcome.kind


Act = Callable[[Line], Coroutine[Any, Any, None]]


def in_line(folder: Path, act: Act, **limits: Any) -> None:
    """Act on a queue that serves."""

    async def everything() -> None:
        line = make_line(folder, **limits)
        serving = asyncio.create_task(line.queue.serve([], lambda: None))
        try:
            await act(line)
        finally:
            line.runner.go.set()
            serving.cancel()
            await asyncio.wait([serving])
        assert line.runner.most_at_once <= 1
        assert serving.cancelled()

    asyncio.run(everything())


def make_line(folder: Path, **limits: Any) -> Line:
    allowed = AgentLimits(**limits)
    ledger = Ledger(folder, allowed.kept_outcomes, allowed.kept_outcome_bytes)
    ledger.open()
    runner, clock = FakeRunner(), Clock()
    return Line(JobQueue(ledger, runner, allowed, clock), runner, clock, allowed)


def test_jobs_run_one_after_the_other(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        places = [line.submit(number).place for number in (1, 2, 3)]
        assert places == [0, 1, 2]
        assert line.queue.status(id_of(0)) == JobStatus(id=id_of(0), state=JobState.RUNNING)
        assert line.queue.waiting == 3
        line.runner.go.set()
        assert [await line.outcome(number) for number in range(4)] == [DONE] * 4
        assert line.runner.ran == [0, 1, 2, 3]
        assert line.runner.held == []

    in_line(tmp_path, act)


def test_a_waiting_client_hears_at_once(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(1)
        waiting = [asyncio.create_task(line.queue.wait(id_of(1), 20)) for _ in range(3)]
        await asyncio.sleep(0)
        line.runner.go.set()
        async with asyncio.timeout(10):  # far below what they were ready to wait
            for task in waiting:
                assert (await task).outcome == DONE

    in_line(tmp_path, act)


def test_waiting_ends_with_its_time(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await line.queue.wait(id_of(1), 0.01)).state is JobState.RUNNING
            assert (await line.queue.wait(id_of(1), 0)).state is JobState.RUNNING
            # No longer than two thirds of the lease, whatever is asked for.
            assert (await line.queue.wait(id_of(1), 1e9)).state is JobState.RUNNING

    in_line(tmp_path, act, lease_seconds=0.3)


def test_the_same_again_is_the_same_job(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(1)
        assert line.submit(1).state is JobState.RUNNING
        with pytest.raises(Refused) as caught:
            line.queue.submit(id_of(1), job_of(2))
        assert (caught.value.status, caught.value.code) == (409, "id_taken")
        line.runner.go.set()
        await line.outcome(1)
        assert line.submit(1).outcome == DONE
        assert line.runner.ran == [1]
        with pytest.raises(Refused):
            line.queue.submit(id_of(1), job_of(2))

    in_line(tmp_path, act)


def test_a_full_line_says_when_to_come_back(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        line.submit(1)
        line.submit(2)
        for attempt in range(2):
            with pytest.raises(Refused) as caught:
                line.submit(3 + attempt)
            assert caught.value.status == 429
            # Three jobs of 0.5 s start, 0.5 s warm-up and 1 s of samples: half of 6 s.
            assert caught.value.response().headers["retry-after"] == "3"
        assert line.submit(2).state is JobState.QUEUED  # one that has its place keeps it
        assert line.runner.held == [0, 1, 2]
        line.runner.go.set()
        await line.outcome(2)
        line.submit(3)
        assert await line.outcome(3) == DONE

    in_line(tmp_path, act, queue=2)


def test_retrying_is_never_far_away(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        request = job_of(1).request.model_copy(
            update={"timing": job_of(1).request.timing.model_copy(update={"warmup_seconds": 1e9})}
        )
        line.queue.submit(id_of(1), MeasureJob(request=request))
        assert line.queue.retry_seconds() == 60

    in_line(tmp_path, act)


def test_a_job_whose_file_is_missing_leaves_no_trace(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        line.runner.missing = True
        with pytest.raises(Refused):
            line.submit(1)
        with pytest.raises(Refused) as caught:
            line.queue.status(id_of(1))
        assert (caught.value.status, caught.value.code) == (404, "no_job")
        line.runner.missing = False
        line.runner.go.set()
        line.submit(1)
        assert await line.outcome(1) == DONE

    in_line(tmp_path, act)


def test_a_job_that_cannot_be_written_down_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(line: Line) -> None:
        def full(*_: object) -> None:
            raise RunError("no space")

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "begin", full)
            with pytest.raises(RunError):
                line.submit(1)
        assert line.runner.held == []
        assert line.queue.waiting == 0

    in_line(tmp_path, act)


def test_taking_back(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        line.submit(1)
        line.submit(2)
        status = line.queue.cancel(id_of(1))
        assert isinstance(status.outcome, Failure)
        assert status.outcome.kind is FailureKind.CANCELLED
        assert line.queue.status(id_of(2)).place == 0
        assert line.queue.cancel(id_of(0)).state is JobState.RUNNING
        assert await line.failure(0) is FailureKind.CANCELLED
        line.runner.go.set()
        assert await line.outcome(2) == DONE
        assert line.runner.ran == [0, 2]
        assert line.queue.cancel(id_of(2)).outcome == DONE  # too late
        with pytest.raises(Refused):
            line.queue.cancel(id_of(9))

    in_line(tmp_path, act)


def test_whoever_vanishes_frees_the_board(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        line.submit(1)
        line.submit(2)
        line.clock.now += 29.9
        line.queue.status(id_of(2))  # asking renews the lease
        line.queue.expire()
        assert line.queue.waiting == 2
        line.clock.now += 0.1
        line.queue.expire()
        assert line.queue.waiting == 1
        line.runner.go.set()
        assert await line.failure(0) is FailureKind.CANCELLED
        assert await line.failure(1) is FailureKind.CANCELLED
        assert await line.outcome(2) == DONE
        assert line.runner.ran == [0, 2]

    in_line(tmp_path, act, lease_seconds=30)


def test_leases_end_without_being_asked(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        line.clock.now += 1000
        # Nobody calls `expire`, and nobody asks for the job: only the agent's own timer is left.
        async with asyncio.timeout(PATIENCE_SECONDS):
            await line.queue.idle()
        assert await line.failure(0) is FailureKind.CANCELLED

    in_line(tmp_path, act, lease_seconds=0.2)


def test_the_wall_clock_does_not_end_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        for jump in (-1e9, 1e9):
            monkeypatch.setattr(time, "time", lambda jump=jump: 1.7e9 + jump)
            monkeypatch.setattr(time, "time_ns", lambda jump=jump: int((1.7e9 + jump) * 1e9))
            line.queue.expire()
        line.runner.go.set()
        assert await line.outcome(0) == DONE

    in_line(tmp_path, act)


def test_the_hard_deadline(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        for _ in range(10):
            line.clock.now += 10
            line.queue.status(id_of(0))
            line.queue.expire()
        assert await line.failure(0) is FailureKind.TIMED_OUT

    in_line(tmp_path, act, job_seconds=100, lease_seconds=30)


def test_what_comes_next_is_known(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        assert line.queue.next_expiry() is None
        await line.running(0)
        line.clock.now += 5
        line.submit(1)
        assert line.queue.next_expiry() == 130
        line.queue.status(id_of(0))
        assert line.queue.next_expiry() == 135

    in_line(tmp_path, act, lease_seconds=30, job_seconds=900)


def test_stopping_ends_every_job_aloud(tmp_path: Path) -> None:
    async def act(line: Line) -> None:
        await line.running(0)
        line.submit(1)
        waiting = asyncio.create_task(line.queue.wait(id_of(0), 20))
        line.queue.close()
        await line.queue.idle()
        assert await line.failure(0) is FailureKind.AGENT_RESTARTED
        assert await line.failure(1) is FailureKind.AGENT_RESTARTED
        assert (await waiting).state is JobState.DONE
        with pytest.raises(Refused) as caught:
            line.submit(2)
        assert caught.value.status == 503
        assert int(caught.value.response().headers["retry-after"]) >= 1
        assert line.submit(1).state is JobState.DONE

    in_line(tmp_path, act)


def test_a_restart_ends_every_job_aloud(tmp_path: Path) -> None:
    async def before(line: Line) -> None:
        await line.running(0)
        line.submit(1)

    async def after(line: Line) -> None:
        for number in (0, 1):
            assert await line.failure(number) is FailureKind.AGENT_RESTARTED
            assert line.submit(number).state is JobState.DONE
        assert line.runner.ran == []

    in_line(tmp_path, before)
    in_line(tmp_path, after)


def test_a_damaged_file_is_the_same_job_still(tmp_path: Path) -> None:
    (tmp_path / f"{id_of(1)}.json").write_bytes(b"")

    async def act(line: Line) -> None:
        outcome = line.submit(1).outcome
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.AGENT_RESTARTED

    in_line(tmp_path, act)


def test_our_own_mistake_ends_one_job_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(line: Line) -> None:
        line.runner.error = ZeroDivisionError("secret detail")
        line.runner.go.set()
        line.submit(1)
        outcome = await line.outcome(1)
        assert isinstance(outcome, Failure)
        assert outcome.kind is FailureKind.RUNTIME_ERROR
        assert "secret detail" not in outcome.message
        line.runner.error = None
        line.submit(2)
        assert await line.outcome(2) == DONE

    in_line(tmp_path, act)
    assert "secret detail" in caplog.text


def test_chores_yield_to_jobs(tmp_path: Path) -> None:
    begun = threading.Event()
    log: list[str] = []

    def chore(stop: Stop) -> bool:
        log.append("chore")
        if len(log) > 1:
            return True
        begun.set()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while stop.failure is None:
            assert time.monotonic() < give_up
            time.sleep(0.002)
        return False

    def broken(_: Stop) -> bool:
        log.append("broken")
        raise ValueError

    async def everything() -> None:
        line = make_line(tmp_path)
        line.runner.go.set()
        tidied = threading.Event()
        serving = asyncio.create_task(line.queue.serve([chore, broken], tidied.set))
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        line.submit(1)
        assert await line.outcome(1) == DONE
        assert await asyncio.to_thread(tidied.wait, PATIENCE_SECONDS)
        serving.cancel()
        await asyncio.wait([serving])

    asyncio.run(everything())
    assert log == ["chore", "chore", "broken"]


def test_being_cancelled_stops_what_runs(tmp_path: Path) -> None:
    async def everything() -> None:
        line = make_line(tmp_path)
        serving = asyncio.create_task(line.queue.serve([], lambda: None))
        await line.running(0)
        serving.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.wait([serving])
        assert line.runner.at_once == 0

    asyncio.run(everything())
