"""Ending processes: asked first, killed where they do not listen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import psutil

GRACE_SECONDS = 10.0


def living(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of the processes that are still there."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def end_processes(processes: Sequence[psutil.Process]) -> None:
    """Ask the processes to end; after `GRACE_SECONDS` kill those that are left."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=GRACE_SECONDS)
