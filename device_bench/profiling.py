"""Where a file's latency goes: what every runtime's profiler is, and what they share.

A profiler is a module with one function, `profile`. What its operators do not account for is "other".
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast

import numpy as np

from device_bench.protocol import BenchRequest, FailureKind, OperatorTime, RuntimeName
from device_bench.runtimes.base import Model, RuntimeFailure
from device_bench.timing import Clock

PROFILERS: dict[RuntimeName, str] = {
    RuntimeName.ONNXRUNTIME: "device_bench.runtimes.onnxruntime_profile",
    RuntimeName.LITERT: "device_bench.runtimes.litert_profile",
}
# Stretches of the whole file and of its parts take turns, because a shared machine drifts.
ROUNDS = 12
# A rest larger than this share of the whole is spoken of.
LARGE_REST = 0.1
# The slowest runs of an operator were interrupted; they are left out on both sides of every difference.
KEPT_PART = 0.9


class Breakdown(NamedTuple):
    """Operators in the order of the run and the whole, in ms. `notes`: what to know about them."""

    operators: tuple[OperatorTime, ...]
    whole_ms: float
    method: Literal["profiler", "single operators"]
    notes: tuple[str, ...] = ()

    @property
    def other_ms(self) -> float:
        """The whole less its operators; below 0 where they sum to more."""
        return self.whole_ms - sum(operator.ms for operator in self.operators)

    def warnings(self) -> tuple[str, ...]:
        """The notes, and one more where the operators do not add up to the whole."""
        rest = self.other_ms / self.whole_ms
        if abs(rest) <= LARGE_REST:
            return self.notes
        sense = "less" if rest > 0 else "more"
        return (
            *self.notes,
            f"the operators sum to {abs(rest):.0%} {sense} than the whole file takes: see the row other",
        )


class Profiler(Protocol):
    """A module that `PROFILERS` names, seen as an object."""

    def profile(self, path: Path, model: Model, request: BenchRequest, clock: Clock) -> Breakdown:
        """Break a file's latency down.

        Args:
            path: the file.
            model: it, loaded for the request's accelerator, with inputs set.

        Raises:
            RuntimeFailure: it cannot be told on this machine.
        """
        ...


def break_down(model: Model, request: BenchRequest, clock: Clock) -> Breakdown:
    """Where the latency of a loaded file goes.

    Raises:
        RuntimeFailure: its runtime or accelerator has no profiler here.
    """
    if request.runtime not in PROFILERS:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"there is no profile of {request.runtime.value} files; there is one of "
            f"{' and '.join(name.value for name in PROFILERS)}",
        )
    if not request.accelerator.startswith("cpu"):
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"there is no profile on {request.accelerator}: its operators end later than the calls that "
            "start them; profile with accelerator cpu",
        )
    profiler = cast("Profiler", import_module(PROFILERS[request.runtime]))
    return profiler.profile(Path(request.path), model, request, clock)


def trimmed_mean(durations: Sequence[int] | Sequence[float]) -> float:
    """Mean of the fastest `KEPT_PART` of the durations, in their unit.

    A mean, not a median: a profiler that counts whole microseconds needs one to tell parts of them.
    """
    ordered = np.sort(np.asarray(durations, dtype=np.float64))
    return float(ordered[: max(1, int(len(ordered) * KEPT_PART))].mean())
