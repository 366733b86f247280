"""One measurement at a time; the others wait in line, as long as their clients ask for them.

Everything here runs on the event loop's thread; only the measuring itself runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all
from dataclasses import dataclass, field
from typing import ParamSpec, Protocol, TypeVar

from device_bench.agent.estimates import expected_seconds
from device_bench.agent.ledger import Entry, Ledger, digest_of
from device_bench.agent.refusals import Refused
from device_bench.agent.settings import AgentLimits
from device_bench.isolation import Stop
from device_bench.protocol import Failure, FailureKind
from device_bench.wire import Job, JobState, JobStatus, Outcome

_LOG = logging.getLogger("device_bench.agent")

P = ParamSpec("P")
Result = TypeVar("Result")

# What is freed within this time of the last job's end is likely to be needed again.
_TIDY_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0

STOPPING = Failure(
    kind=FailureKind.AGENT_RESTARTED,
    message="the agent was stopped before this job was done; ask again under a new id when it is back",
)


class Runner(Protocol):
    """Who carries jobs out."""

    def hold(self, job: Job) -> None:
        """Keep the files that a job needs.

        Raises:
            Refused: one of them is not here.
        """
        ...

    def release(self, job: Job) -> None:
        """The job is over."""
        ...

    def run(self, job: Job, stop: Stop) -> Outcome:
        """Carry a job out; called in another thread. Ends soon after `stop` says so."""
        ...

    def finish(self, outcome: Outcome) -> Outcome:
        """Put away what a job made; called on the event loop's thread."""
        ...


@dataclass
class _Open:
    """A job that waits or runs. Times are the queue's clock's."""

    entry: Entry
    job: Job
    asked_at: float
    ended: asyncio.Future[JobStatus] = field(default_factory=asyncio.Future)
    started_at: float | None = None
    stop: Stop | None = None


class JobQueue:
    """The line of jobs before one board.

    Args:
        ledger: where jobs are written down; already open.
        runner: carries them out.
        limits: how long the line, a lease and a job may be.
        clock: monotonic seconds.
    """

    def __init__(
        self, ledger: Ledger, runner: Runner, limits: AgentLimits, clock: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._limits = limits
        self._clock = clock
        self._open: dict[str, _Open] = {}  # in order of arrival; the running one is among them
        self._running: _Open | None = None
        self._chore: Stop | None = None
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many jobs wait in line."""
        return len(self._open) - (self._running is not None)

    def submit(self, job_id: str, job: Job) -> JobStatus:
        """Put a job in line. The same again is the same job.

        Raises:
            Refused: 404 a file is not here, 409 another job has this id, 429 the line is full, 503 the agent
                is stopping.
            RunError: it cannot be written down.
        """
        digest = digest_of(job)
        if job_id in self._ledger:
            # None: its file was damaged, and whoever asks again learns that the restart ended it.
            if self._ledger.digest(job_id) not in (digest, None):
                raise Refused(409, "id_taken", f"another job has the id {job_id}; take a fresh one")
            return self.status(job_id)
        if self._closed:
            raise Refused(503, "stopping", "the agent is stopping; try again when it is back", 5)
        if self.waiting >= self._limits.queue:
            raise Refused(
                429,
                "line_full",
                f"{self.waiting} jobs wait already, which is all this board takes; come back later",
                self.retry_seconds(),
            )
        self._runner.hold(job)
        try:
            entry = self._ledger.begin(job_id, digest)
        except BaseException:
            self._runner.release(job)
            raise
        self._open[job_id] = _Open(entry, job, asked_at=self._clock())
        if self._chore is not None:
            self._chore.say(_cancelled("a client's job goes first"))
        self._changed.set()
        return self.status(job_id)

    def status(self, job_id: str) -> JobStatus:
        """How a job stands. Asking renews its lease.

        Raises:
            Refused: 404 it is unknown.
        """
        found = self._open.get(job_id)
        if found is None:
            done = self._ledger.outcome(job_id)
            if done is None:
                raise Refused(
                    404, "no_job", f"there is no job {job_id}; it was never put in line, or it is long done"
                )
            return done
        found.asked_at = self._clock()
        if found is self._running:
            return JobStatus(id=job_id, state=JobState.RUNNING)
        line = [other for other in self._open.values() if other is not self._running]
        return JobStatus(id=job_id, state=JobState.QUEUED, place=line.index(found))

    async def wait(self, job_id: str, seconds: float) -> JobStatus:
        """How a job stands once it is done, or after that many seconds at the latest.

        Raises:
            Refused: 404 it is unknown.
        """
        status = self.status(job_id)
        found = self._open.get(job_id)
        if found is None or seconds <= 0:
            return status
        await asyncio.wait([found.ended], timeout=min(seconds, self._limits.longest_wait_seconds))
        return found.ended.result() if found.ended.done() else self.status(job_id)

    def cancel(self, job_id: str) -> JobStatus:
        """End a job as `cancelled`; one that runs is killed and is done a moment later.

        Raises:
            Refused: 404 it is unknown.
        """
        if job_id in self._open:
            self._end(self._open[job_id], _cancelled("its client took it back"))
        return self.status(job_id)

    def expire(self) -> None:
        """Give up the jobs whose clients vanished, and the one that ran too long."""
        now = self._clock()
        for found in list(self._open.values()):
            if now >= found.asked_at + self._limits.lease_seconds:
                _LOG.warning("job %s is given up: nobody asked for it", found.entry.id)
                silence = f"nobody asked for it for {self._limits.lease_seconds:g} s"
                self._end(found, _cancelled(silence))
            elif found.started_at is not None and now >= found.started_at + self._limits.job_seconds:
                message = (
                    f"not done within this board's limit of {self._limits.job_seconds:g} s a job; killed"
                )
                self._end(found, Failure(kind=FailureKind.TIMED_OUT, message=message))

    def next_expiry(self) -> float | None:
        """When `expire` has something to do at the earliest, by the clock; None with no job here."""
        times = [found.asked_at + self._limits.lease_seconds for found in self._open.values()]
        if self._running is not None and self._running.started_at is not None:
            times.append(self._running.started_at + self._limits.job_seconds)
        return min(times, default=None)

    def retry_seconds(self) -> float:
        """In how many seconds half of the line should be done.

        Not when the next place is free: all who are refused would come back for that one place.
        """
        left = sum(expected_seconds(found.job) for found in self._open.values()) / 2
        return min(max(1.0, left), _LONGEST_RETRY_SECONDS)

    async def serve(self, chores: Sequence[Callable[[Stop], bool]], tidy: Callable[[], None]) -> None:
        """Carry jobs out one after the other, until cancelled.

        Args:
            chores: done where jobs are done, while none is here. One that a job interrupts returns False, and
                is begun anew later.
            tidy: called there after the last job or chore.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="measuring") as pool:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_leases())
                await self._work(pool, deque(chores), tidy)

    async def _work(
        self, pool: ThreadPoolExecutor, chores: deque[Callable[[Stop], bool]], tidy: Callable[[], None]
    ) -> None:
        untidy = False
        while True:
            self._changed.clear()
            if self._open:
                await self._carry_out(next(iter(self._open.values())), pool)
                untidy = True
            elif chores:
                if await self._do(chores[0], pool):
                    chores.popleft()
                untidy = True
            elif untidy:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _TIDY_SECONDS)
                    continue
                await asyncio.wrap_future(pool.submit(tidy))
                untidy = False
            else:
                await self._changed.wait()

    def close(self) -> None:
        """End every job because the agent stops, and take no more."""
        self._closed = True
        for found in list(self._open.values()):
            self._end(found, STOPPING)

    async def idle(self) -> None:
        """Wait until no job is left."""
        while self._open:
            await asyncio.wait([found.ended for found in self._open.values()])

    async def _do(self, chore: Callable[[Stop], bool], pool: ThreadPoolExecutor) -> bool:
        """Do a chore; whether it needs not be done again."""
        with Stop() as stop:
            self._chore = stop
            try:
                return await _elsewhere(pool, stop, chore, stop)
            except Exception:
                _LOG.exception("a chore failed")
                return True
            finally:
                self._chore = None

    async def _carry_out(self, found: _Open, pool: ThreadPoolExecutor) -> None:
        with Stop() as stop:
            self._running, found.started_at, found.stop = found, self._clock(), stop
            try:
                made = await _elsewhere(pool, stop, self._runner.run, found.job, stop)
                # A job that was stopped on its last step is stopped: its client was told so.
                outcome = stop.failure or self._runner.finish(made)
            except Exception as error:
                _LOG.exception("job %s broke the agent's own code", found.entry.id)
                message = f"the agent failed: {type(error).__name__}; its log tells more"
                outcome = Failure(kind=FailureKind.RUNTIME_ERROR, message=message)
            finally:
                found.stop = None
                self._running = None
        self._settle(found, outcome)

    def _end(self, found: _Open, failure: Failure) -> None:
        if found is not self._running:
            self._settle(found, failure)
        elif found.stop is not None:
            found.stop.say(failure)

    def _settle(self, found: _Open, outcome: Outcome) -> None:
        del self._open[found.entry.id]
        self._runner.release(found.job)
        found.ended.set_result(self._ledger.finish(found.entry, outcome))
        took = "" if found.started_at is None else f" after {self._clock() - found.started_at:.3f} s"
        what = outcome.kind.value if isinstance(outcome, Failure) else type(outcome).__name__
        _LOG.info("job %s (%s) is done%s: %s", found.entry.id, found.job.kind, took, what)

    async def _keep_leases(self) -> None:
        """Sleep until the next lease may end; with no job here nothing is due."""
        while True:
            due = self.next_expiry()
            # A job that arrives while this sleeps has a whole lease before it.
            longest = min(self._limits.lease_seconds, self._limits.job_seconds)
            await asyncio.sleep(longest if due is None else max(0.01, due - self._clock()))
            self.expire()


async def _elsewhere(
    pool: ThreadPoolExecutor, stop: Stop, call: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
) -> Result:
    """Call in the pool's thread; it has ended when this ends, even if that is by being cancelled."""
    future = pool.submit(call, *args, **kwargs)
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        stop.say(STOPPING)
        wait_for_all([future])
        raise


def _cancelled(why: str) -> Failure:
    return Failure(kind=FailureKind.CANCELLED, message=f"the job was cancelled: {why}")
