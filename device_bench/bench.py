"""What a bench is: whoever runs files and says what it saw, on this machine or on a board far away."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device_bench import local
from device_bench.protocol import BenchRequest, Comparison, Failure, Measurement, Profile, Rounds


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
