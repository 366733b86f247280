"""One fresh child process per measurement, with limits; its death is a `Failure`, never ours."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydantic import TypeAdapter

from device_bench.commands import Command, Job
from device_bench.protocol import Failure, FailureKind, Limits, Record

Answer = TypeVar("Answer", bound=Record)

_PACKAGE_ROOT = Path(__file__).resolve().parent.parent
# How long a child that is told to end may take to end by itself.
_END_SECONDS = 2.0
_POLL_SECONDS = 0.002
# Libraries' last words: enough of standard error to hold one message.
_LAST_WORDS_BYTES = 800


class Stop:
    """Ends, from another thread, what children run for whoever is inside `stopped_by`.

    A context manager: it holds a pipe, so that a waiting parent wakes at once.
    """

    def __init__(self) -> None:
        self._failure: Failure | None = None
        self._awake, self._wake = os.pipe()

    def __enter__(self) -> Stop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._wake)
        os.close(self._awake)

    @property
    def failure(self) -> Failure | None:
        """What every question to a child is answered by from now on; None as long as nobody said stop."""
        return self._failure

    def say(self, failure: Failure) -> None:
        """Kill the child that runs and let none run after it. Only the first word counts."""
        if self._failure is None:
            self._failure = failure
            os.write(self._wake, b"x")

    def fileno(self) -> int:
        """Readable from the moment that somebody said stop."""
        return self._awake


# A context variable, so that what asks children in turn (a comparison, a profile) need not hand it on.
_STOP: ContextVar[Stop | None] = ContextVar("stop", default=None)


@contextmanager
def stopped_by(stop: Stop) -> Iterator[None]:
    """Children made inside are killed once `stop` says so."""
    token = _STOP.set(stop)
    try:
        yield
    finally:
        _STOP.reset(token)


class Child:
    """A worker process for one runtime. A context manager: leaving it leaves no process behind.

    Args:
        module: dotted name of the runtime's module, a value of `device_bench.runtimes.MODULES`.
        limits: what the child may use; `wall_seconds` holds for each command.
    """

    def __init__(self, module: str, limits: Limits) -> None:
        self._job = Job(module=module, limits=limits)
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1
        self._pending = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._killed = False
        self._stop = _STOP.get()

    def __enter__(self) -> Child:
        self._answers, child_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                # -P: a file in the user's folder must not stand in for a library.
                [sys.executable, "-P", "-m", "device_bench.worker", str(child_end)],
                stdin=subprocess.PIPE,
                stdout=self._errors,
                stderr=self._errors,
                pass_fds=(child_end,),
                start_new_session=True,
                env=_environment(),
            )
        except BaseException:
            os.close(self._answers)
            self._errors.close()
            raise
        finally:
            os.close(child_end)
        self._write(self._job)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._running()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died with our last command unread
            process.stdin.close()
        if error is None and not self._killed:
            self._await_end(_END_SECONDS)
        self._kill_group()
        process.wait()
        os.close(self._answers)
        self._errors.close()

    def ask(self, command: Command, answer: type[Answer]) -> Answer | Failure:
        """Send a command and wait for its answer, at most the limits' `wall_seconds`.

        Returns:
            The answer, or why there is none: what the child itself reported, how it died, that it hung, or
            what the `Stop` of `stopped_by` said.
            After a death or a hang the child answers no more.
        """
        self._write(command)
        line = self._read_line(time.monotonic() + self._job.limits.wall_seconds)
        if line is None:
            return self._epitaph(command)
        adapter: TypeAdapter[Answer | Failure] = TypeAdapter(answer | Failure)
        return adapter.validate_json(line)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("Child is a context manager: use it in a `with` statement")
        return self._process

    def _write(self, record: Record) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # it is dead already; reading its answer will tell how
            stdin.write(record.model_dump_json().encode() + b"\n")
            stdin.flush()

    def _read_line(self, deadline: float) -> bytes | None:
        """The next answer; None if the child died or, past the deadline, was killed."""
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        if self._stop is not None:
            poll.register(self._stop, select.POLLIN)
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or self._stopped() is not None:
                self._killed = True
                self._kill_group()
                return None
            if not any(descriptor == self._answers for descriptor, _ in poll.poll(left * 1000)):
                continue
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                return None
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _stopped(self) -> Failure | None:
        return None if self._stop is None else self._stop.failure

    def _kill_group(self) -> None:
        # The child leads its own session, so its process id is the group's as long as it is not reaped.
        process = self._running()
        if process.returncode is None:
            # Nobody may be left in the group; macOS says so by the second error.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _await_end(self, seconds: float) -> None:
        """Give the child that long to end by itself. It is not reaped, so its group can still be killed."""
        process = self._running()
        stop = time.monotonic() + seconds
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while process.returncode is None and os.waitid(os.P_PID, process.pid, flags) is None:
            if time.monotonic() > stop:
                return
            time.sleep(_POLL_SECONDS)

    def _epitaph(self, command: Command) -> Failure:
        """Say how the child died."""
        doing = f"during {command.command!r}"
        limits = self._job.limits
        stopped = self._stopped()
        if stopped is not None:
            return stopped
        if self._killed:
            message = f"no answer {doing} within the wall limit of {limits.wall_seconds:g} s; killed"
            return Failure(kind=FailureKind.TIMED_OUT, message=message)
        self._await_end(_END_SECONDS)
        self._kill_group()
        code = self._running().wait()
        words = self._last_words()
        if "MemoryError" in words:
            message = f"ran out of memory {doing}{words}"
            return Failure(kind=FailureKind.OUT_OF_MEMORY, message=message, exit_code=code)
        if code >= 0:
            message = f"the process ended {doing} with exit code {code}{words}"
            return Failure(kind=FailureKind.CRASHED, message=message, exit_code=code)
        died_of = signal.Signals(-code)
        if died_of == signal.SIGXCPU:
            message = f"used up its {limits.cpu_seconds} s of processor time {doing}"
            return Failure(kind=FailureKind.TIMED_OUT, message=message, exit_code=code)
        if died_of == signal.SIGALRM:
            message = f"ended itself {doing}, past its wall limit of {limits.wall_seconds:g} s"
            return Failure(kind=FailureKind.TIMED_OUT, message=message, exit_code=code)
        if died_of == signal.SIGKILL or "bad_alloc" in words:
            message = f"died of {died_of.name} {doing}, most likely for want of memory{words}"
            return Failure(kind=FailureKind.OUT_OF_MEMORY, message=message, exit_code=code)
        message = f"died of {died_of.name} {doing}{words}"
        return Failure(kind=FailureKind.CRASHED, message=message, exit_code=code)

    def _last_words(self) -> str:
        self._errors.seek(0, os.SEEK_END)
        start = max(0, self._errors.tell() - _LAST_WORDS_BYTES)
        self._errors.seek(start)
        lines = self._errors.read().decode(errors="replace").splitlines()
        if start > 0 and len(lines) > 1:
            del lines[0]  # it is cut
        # ONNX Runtime is made to log at the level "info"; such lines are no last words.
        words = " ".join(" ".join(line for line in lines if "[I:onnxruntime" not in line).split())
        return f"; it last wrote: {words}" if words else ""


def _environment() -> dict[str, str]:
    """The child's environment: ours, this package on the path, and no thread pools beside the runtime's."""
    path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Looking for pydantic's plug-ins in every installed distribution would double its import time.
        "PYDANTIC_DISABLE_PLUGINS": "__all__",
    }
