"""One measurement at a time on each physical device, whoever asks.

What keeps others away is passed in by a context variable, as a run's reporter is: by default a lock file of
this machine, in flows that a server drives a Prefect concurrency limit as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_bench.bench import Bench
from device_bench.errors import RunError
from device_bench.protocol import BenchRequest, Comparison, Failure, Measurement, Profile, Rounds
from device_bench.storage import locked
from pipeline.data.cache import cache_folder
from pipeline.progress import reporter

# Takes a device's name and whether to wait; holds the device until the context ends.
Slots = Callable[[str, bool], AbstractContextManager[None]]
# Two runs of one machine take turns many times; what is short is not worth a word.
PATIENCE_SECONDS = 2.0


class BusyError(RunError):
    """Somebody else measures there, and nobody wanted to wait."""


@contextmanager
def file_slot(device: str, wait: bool) -> Iterator[None]:
    """A lock file; the operating system drops it when its holder dies. Whoever waits long is told so.

    Raises:
        BusyError: not `wait`, and another process holds the device.
    """
    folder = cache_folder() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{device}.lock"
    with ExitStack() as held:
        if not _taken_soon(held, path, PATIENCE_SECONDS if wait else 0.0):
            if not wait:
                raise BusyError(f"another process measures on {device}; try again when it is done")
            reporter().note(f"waits for another process that measures on {device}")
            held.enter_context(locked(path))
        yield


def _taken_soon(held: ExitStack, path: Path, seconds: float) -> bool:
    """Try for so long to take the lock, once at least; True if `held` has it."""
    until = time.monotonic() + seconds
    while True:
        try:
            held.enter_context(locked(path, wait=False))
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        else:
            return True


current_slots: ContextVar[Slots] = ContextVar("current_slots", default=file_slot)


def slot(device: str, wait: bool = True) -> AbstractContextManager[None]:
    """The device for oneself until the context ends.

    Raises:
        BusyError: not `wait`, and somebody else has it.
    """
    return current_slots.get()(device, wait)


class TurnTaking:
    """A bench on a device that others measure on, too. Predictions are not timed and take no turns.

    Args:
        bench: what measures there.
        device: its name.
    """

    def __init__(self, bench: Bench, device: str) -> None:
        self.bench, self.device = bench, device

    def measure(self, request: BenchRequest) -> Measurement | Failure:
        """As `Bench.measure`."""
        with slot(self.device):
            return self.bench.measure(request)

    def compare(
        self, first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()
    ) -> Comparison | Failure:
        """As `Bench.compare`."""
        with slot(self.device):
            return self.bench.compare(first, second, rounds)

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        """As `Bench.predict`."""
        return self.bench.predict(request, inputs)

    def profile(self, request: BenchRequest) -> Profile | Failure:
        """As `Bench.profile`."""
        with slot(self.device):
            return self.bench.profile(request)
