"""Measures many files one after another in one process, where hundreds are to be ranked.

A fresh process for each file costs more than its inferences. What is given up for that: memory is not told
(the process has held other models), and a crash also costs the start of a new process.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from device_bench.commands import Measure, Readings
from device_bench.isolation import Child
from device_bench.local import check_file
from device_bench.protocol import BenchRequest, Failure, FailureKind, Limits, TimingPolicy
from device_bench.runtimes import MODULES
from device_bench.statistics import latency

# The median of a twentieth of a second is good enough to rank by.
SWEEP_TIMING = TimingPolicy(warmup_seconds=0.02, min_seconds=0.05, min_samples=20, max_seconds=5.0)
# What a file leaves behind in the process adds up; after so many a new one is started.
FILES_A_PROCESS = 200


class Sweep:
    """A context manager; leaving it leaves no process behind.

    Args:
        limits: for the process that measures.
    """

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._children: dict[str, tuple[ExitStack, Child, int]] = {}

    def p50_ms(self, request: BenchRequest) -> float | Failure:
        """Median milliseconds of one inference of a file on this machine, or why there is none.

        Raises:
            BadInputError: there is no such file.
        """
        check_file(request)
        module = MODULES[request.runtime]
        answer = self._child(module).ask(Measure(request=request), Readings)
        if isinstance(answer, Failure):
            if answer.kind not in (FailureKind.UNSUPPORTED, FailureKind.NOT_A_MODEL):
                self._end(module)
            return answer
        return latency(answer.samples_ns, request.seed).p50_ms

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module in list(self._children):
            self._end(module)

    def _child(self, module: str) -> Child:
        if module in self._children and self._children[module][2] >= FILES_A_PROCESS:
            self._end(module)
        if module not in self._children:
            stack = ExitStack()
            self._children[module] = (stack, stack.enter_context(Child(module, self._limits)), 0)
        stack, child, files = self._children[module]
        self._children[module] = (stack, child, files + 1)
        return child

    def _end(self, module: str) -> None:
        stack, _, _ = self._children.pop(module)
        stack.close()
