"""Ending processes: asked first, killed where they do not listen."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence

import psutil

GRACE_SECONDS = 10.0
POLL_SECONDS = 0.05


def living(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of the processes that still run."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return [process for process in found if _runs(process)]


def outlive(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until all of the processes have ended; those that still run after so many seconds.

    A process that has ended and that nobody has waited for, as in a container whose first process waits for
    no orphans, counts as ended; `psutil.wait_procs` takes it for a running one.
    """
    deadline = time.monotonic() + seconds
    left = [process for process in processes if _runs(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = [process for process in left if _runs(process)]
    return left


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """Ask the processes to end; after `GRACE_SECONDS` kill those that are left."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    left = outlive(processes, GRACE_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    outlive(left, GRACE_SECONDS)


def _runs(process: psutil.Process) -> bool:
    try:
        # False too where another process has its id by now.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
