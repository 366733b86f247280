"""What a bench is: whoever runs files and says what it saw, on this machine or on a board far away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_bench import local
from device_bench.protocol import BenchRequest, Comparison, Failure, Measurement, Profile, Rounds

# A comparison is steady where its 95 % interval is no wider than this share of its ratio. On a quiet machine
# most are a tenth as wide; of 25 made beside a test run half were steady, all within 3 % of one another, and
# the others up to 10 % off.
STEADY_WIDTH = 0.05


class Bench(Protocol):
    """Runs files. A run that fails is a `Failure`; misuse raises `BadInputError`.

    `tests/conformance/bench_suite.py` is what every implementation must pass.
    """

    def measure(self, request: BenchRequest) -> Measurement | Failure:
        """Latency and memory of one file, in a fresh process."""
        ...

    def compare(
        self, first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()
    ) -> Comparison | Failure:
        """How many times faster the second file is, by interleaved rounds."""
        ...

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        """Outputs, float32 [n, ...], for samples, float32 [n, ...] in the file's own layout."""
        ...

    def profile(self, request: BenchRequest) -> Profile | Failure:
        """Where the latency of one file goes, operator by operator."""
        ...


class LocalBench:
    """This machine."""

    def measure(self, request: BenchRequest) -> Measurement | Failure:
        """See `device_bench.local.measure`."""
        return local.measure(request)

    def compare(
        self, first: BenchRequest, second: BenchRequest, rounds: Rounds = Rounds()
    ) -> Comparison | Failure:
        """See `device_bench.local.compare`."""
        return local.compare(first, second, rounds)

    def predict(self, request: BenchRequest, inputs: NDArray[np.float32]) -> NDArray[np.float32] | Failure:
        """See `device_bench.local.predict`."""
        return local.predict(request, inputs)

    def profile(self, request: BenchRequest) -> Profile | Failure:
        """See `device_bench.local.profile`."""
        return local.profile(request)


def steadiest(compare: Callable[[], Comparison | Failure], attempts: int = 4) -> Comparison | Failure:
    """A comparison that other work on the device left readable, or the most readable of several.

    What is compared again, and what of it is taken, goes by the interval's width and never by the ratio.

    Args:
        compare: makes one; it is asked again while all so far are wider than `STEADY_WIDTH`.
        attempts: how often at most.

    Returns:
        The one whose interval is narrowest; a failure if the first fails.
    """
    made: list[Comparison] = []
    while len(made) < attempts and not any(one.width <= STEADY_WIDTH for one in made):
        outcome = compare()
        if isinstance(outcome, Failure):
            if not made:
                return outcome
            break
        made.append(outcome)
    return min(made, key=lambda one: one.width)
