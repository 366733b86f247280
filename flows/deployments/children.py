"""The processes that `edgeloop server up` holds: started again where they end, and ended with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from flows.deployments.ending import GRACE_SECONDS, end_processes


class Child:
    """A process whose standard input this one holds: it closes when this one ends, and then the child ends.

    Args:
        name: what a person calls it.
        command: what it runs.
        log: the file that its output goes to.
        environment: added to this process's own.
        descriptors: handed on to it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        descriptors: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._descriptors = descriptors
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start it, out of the terminal's reach: Ctrl-C there is for this process alone."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # What an earlier `server up` wrote goes; what this one's child wrote before it ended stays.
        with self.log.open("wb" if self._process is None else "ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
                pass_fds=self._descriptors,
                start_new_session=True,
            )

    @property
    def pid(self) -> int | None:
        """Its process id; None before it was started."""
        return None if self._process is None else self._process.pid

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process is not None and self._process.poll() is None

    def how_it_ended(self) -> str:
        """The signal that ended it, or what it wrote last that names an error, or else the last line."""
        status = None if self._process is None else self._process.poll()
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        content = self.log.read_bytes()[self._log_start :].decode(errors="replace")
        lines = [line.strip() for line in content.splitlines() if line.strip()]
        told = [line for line in lines if "Error" in line] or lines or ["it said nothing"]
        return told[-1]

    def stop(self) -> None:
        """End it; what it has started ends with it."""
        process, self._process = self._process, None
        if process is None:
            return
        below: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(process.pid).children(recursive=True)
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(GRACE_SECONDS + 5.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        end_processes(below)
