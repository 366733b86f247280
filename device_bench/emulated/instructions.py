"""Instructions of one inference, where an emulator counts them: a cost that no noise touches.

The emulator's plugin (`count_instructions.c`) counts into a file for each process, which is mapped here.
"""

from __future__ import annotations

import mmap
import os
import statistics
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

# The folder in which the plugin keeps one file a process.
VARIABLE = "DEVICE_BENCH_INSTRUCTIONS"
_RUNS = 11

Counter = Callable[[], int]


def open_counter(environment: Mapping[str, str] = os.environ) -> Counter | None:
    """Reads how many instructions this process has run; None where nobody counts them."""
    folder = environment.get(VARIABLE)
    if not folder:
        return None
    path = Path(folder) / str(os.getpid())
    try:
        with path.open("rb") as file:
            counted = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)
        path.unlink()  # the mapping stays, and the folder stays small
    except (OSError, ValueError):
        return None
    return lambda: int(struct.unpack_from("=Q", counted)[0])


def instructions_of(run: Callable[[], object], counter: Counter, runs: int = _RUNS) -> int:
    """Median count of one run, less what counting itself takes.

    The interpreter's own work around the call is part of it, some thousands of instructions. Right for one
    thread only: the counter is not atomic.
    """
    nothing = statistics.median_low(_counts(lambda: None, counter, runs))
    return max(0, statistics.median_low(_counts(run, counter, runs)) - nothing)


def _counts(run: Callable[[], object], counter: Counter, runs: int) -> list[int]:
    found = []
    for _ in range(runs):
        before = counter()
        run()
        found.append(counter() - before)
    return found
