"""Boards of a class share work; one that goes away leaves it to its siblings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_bench.protocol import BenchRequest, Failure, FailureKind, RuntimeName
from pipeline.device_slots import BusyError, current_slots
from pipeline.fleet.class_bench import ClassBench
from pipeline.progress import Silent, current_reporter

REQUEST = BenchRequest(path="net.tflite", runtime=RuntimeName.LITERT)


class Board:
    """Answers with its own name, as a failure of its file; without one it cannot be reached."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.asked = 0

    def measure(self, request: BenchRequest) -> Failure:
        self.asked += 1
        if self.name is None:
            return Failure(kind=FailureKind.UNREACHABLE, message="does not answer")
        return Failure(kind=FailureKind.NOT_A_MODEL, message=self.name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path))


@pytest.fixture
def notes() -> Iterator[list[str]]:
    silent = Silent()
    token = current_reporter.set(silent)
    yield silent.notes
    current_reporter.reset(token)


@contextmanager
def busy(*devices: str) -> Iterator[list[tuple[str, bool]]]:
    """Somebody else has these devices; whoever waits for one gets it. What was asked for."""
    asked: list[tuple[str, bool]] = []

    @contextmanager
    def slots(device: str, wait: bool) -> Iterator[None]:
        asked.append((device, wait))
        if device in devices and not wait:
            raise BusyError("busy")
        yield

    token = current_slots.set(slots)
    try:
        yield asked
    finally:
        current_slots.reset(token)


def test_the_free_one_measures() -> None:
    bench = ClassBench("pi4", {"a": Board("a"), "b": Board("b")})  # type: ignore[dict-item]
    with busy("a"):
        assert bench.measure(REQUEST).message == "b"  # type: ignore[union-attr]
    with busy("b"):
        assert bench.measure(REQUEST).message == "a"  # type: ignore[union-attr]


def test_where_none_is_free_one_is_waited_for() -> None:
    bench = ClassBench("pi4", {"a": Board("a"), "b": Board("b")})  # type: ignore[dict-item]
    with busy("a", "b") as asked:
        assert bench.measure(REQUEST).message == "a"  # type: ignore[union-attr]
    assert asked == [("a", False), ("b", False), ("a", True)]


def test_a_board_that_went_away_is_reported_and_asked_no_more(notes: list[str]) -> None:
    gone, there = Board(None), Board("there")
    bench = ClassBench("pi4", {"gone": gone, "there": there})  # type: ignore[dict-item]
    for _ in range(3):
        assert bench.measure(REQUEST).message == "there"  # type: ignore[union-attr]
    assert (gone.asked, there.asked) == (1, 3)
    assert notes == ["gone is left out, its work goes to its siblings: does not answer"]


def test_without_any_board_the_class_cannot_be_reached(notes: list[str]) -> None:
    bench = ClassBench("pi4", {"a": Board(None), "b": Board(None)})  # type: ignore[dict-item]
    found = bench.measure(REQUEST)
    assert isinstance(found, Failure)
    assert found.kind is FailureKind.UNREACHABLE
    assert found.message == "no board of class pi4 answers (a: does not answer; b: does not answer)"
    assert len(notes) == 2
