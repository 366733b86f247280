"""One measurement at a time on a device, between threads and between processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_bench.protocol import BenchRequest, Failure, FailureKind, RuntimeName
from pipeline import device_slots
from pipeline.device_slots import BusyError, TurnTaking, current_slots, file_slot, slot
from pipeline.progress import Silent, current_reporter

REQUEST = BenchRequest(path="net.tflite", runtime=RuntimeName.LITERT)
DONE = Failure(kind=FailureKind.NOT_A_MODEL, message="nothing was measured")
HOLD = """
import sys
from pipeline.device_slots import slot
with slot("board-07"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path))


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Another process that holds board-07."""
    words = [sys.executable, "-c", HOLD]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_told_that_the_device_is_busy(holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError, match="another process measures on board-07"), slot("board-07", False):
        pass
    with slot("board-08", False):
        pass


def test_a_killed_holder_holds_nothing(holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError), slot("board-07", False):
        pass
    holder.kill()
    holder.wait()
    taken = False
    with slot("board-07", False):
        taken = True
    assert taken


def test_whoever_waits_long_is_told_so(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_slots, "PATIENCE_SECONDS", 0.05)
    watch = Silent()
    told: list[str] = []

    def wait() -> None:
        current_reporter.set(watch)
        with slot("board-08"):
            told.extend(watch.notes)
        with slot("board-07"):
            told.extend(watch.notes)

    thread = threading.Thread(target=wait)
    thread.start()
    while not watch.notes:
        thread.join(0.01)
        assert thread.is_alive()
    assert told == []
    holder.kill()
    thread.join()
    assert told == ["waits for another process that measures on board-07"]


class Counting:
    """A bench that sees how many are in it at once."""

    def __init__(self) -> None:
        self.inside = self.most = self.calls = 0
        self._lock = threading.Lock()
        self._others = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(*_: object) -> Failure:
            with self._lock:
                self.inside += 1
                self.calls += 1
                self.most = max(self.most, self.inside)
            # Long enough for another to come in, were it let.
            self._others.wait(0.05)
            with self._lock:
                self.inside -= 1
            return DONE

        return call


def test_whatever_is_timed_takes_turns() -> None:
    counting = Counting()
    bench = TurnTaking(counting, "board-07")
    asks = [
        lambda: bench.measure(REQUEST),
        lambda: bench.compare(REQUEST, REQUEST),
        lambda: bench.profile(REQUEST),
    ]
    threads = [threading.Thread(target=ask) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (counting.calls, counting.most) == (3, 1)


def test_predictions_do_not_wait(holder: subprocess.Popen[str]) -> None:
    import numpy as np

    bench = TurnTaking(Counting(), "board-07")
    assert bench.predict(REQUEST, np.zeros((1, 1), np.float32)) == DONE


def test_what_keeps_others_away_can_be_passed_in() -> None:
    taken: list[str] = []

    @contextmanager
    def mine(device: str, wait: bool) -> Iterator[None]:
        taken.append(device)
        with file_slot(device, wait):
            yield

    token = current_slots.set(mine)
    try:
        TurnTaking(Counting(), "board-07").measure(REQUEST)
    finally:
        current_slots.reset(token)
    TurnTaking(Counting(), "board-08").measure(REQUEST)
    assert taken == ["board-07"]
