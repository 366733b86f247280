"""The boards of one class as one bench: whichever is free measures, and one that went away is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from device_bench.bench import Bench
from device_bench.protocol import (
    BenchRequest,
    Comparison,
    Failure,
    FailureKind,
    Measurement,
    Profile,
    Rounds,
)
from pipeline.device_slots import BusyError, slot
from pipeline.progress import reporter

Answer = TypeVar("Answer")


class ClassBench:
    """A `Bench` over siblings.

    Args:
        name: of the class.
        boards: by name; each measures one file at a time.
    """

    def __init__(self, name: str, boards: Mapping[str, Bench]) -> None:
        self.name = name
        self._boards = dict(boards)
        self._gone: dict[str, str] = {}

    def measure(self, request: BenchRequest) -> Measurement | Failure:
        """As `Bench.measure`, on one of the boards."""
        return self._on_one(lambda board: board.measure(request))

    def compare(
        self, first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()
    ) -> Comparison | Failure:
        """As `Bench.compare`, both files on the same board."""
        return self._on_one(lambda board: board.compare(first, second, rounds))

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        """As `Bench.predict`, on one of the boards."""
        return self._on_one(lambda board: board.predict(request, inputs))

    def profile(self, request: BenchRequest) -> Profile | Failure:
        """As `Bench.profile`, on one of the boards."""
        return self._on_one(lambda board: board.profile(request))

    def _on_one(self, ask: Callable[[Bench], Answer | Failure]) -> Answer | Failure:
        # First whoever is free at once; if nobody is, whoever is next.
        for wait in (False, True):
            for board in [name for name in self._boards if name not in self._gone]:
                try:
                    with slot(board, wait):
                        outcome = ask(self._boards[board])
                except BusyError:
                    continue
                if not isinstance(outcome, Failure) or outcome.kind is not FailureKind.UNREACHABLE:
                    return outcome
                self._gone[board] = outcome.message
                reporter().note(f"{board} is left out, its work goes to its siblings: {outcome.message}")
        told = "; ".join(f"{board}: {why}" for board, why in self._gone.items())
        message = f"no board of class {self.name} answers ({told})"
        return Failure(kind=FailureKind.UNREACHABLE, message=message)
