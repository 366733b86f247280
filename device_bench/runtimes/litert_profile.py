"""LiteRT, whose Python interpreter has no profiler: each operator cut out of the file and measured alone.

All of them are held open in one process and take turns with the whole file; the cost of an invoke that does
nearly nothing is taken off each. What XNNPACK fuses is measured together: a PAD is part of the convolution
behind it (alone it took 17 % of a DS-CNN that does not pay for it), an activation part of what is before it.
So is an operator that the interpreter refuses alone with the next one.

Seen with ai-edge-litert 2.3.0 on one core of an x86 server, one thread: the operators of DS-CNN, ResNet-20
and MobileNetV2 (12 to 99 pieces) sum to 0.99 of the whole and more, those of a vision transformer (219) to
0.93. Differences between files cut off after each operator agree (correlation 0.99 on ResNet-20, above that
on DS-CNN), but a difference of two long times is noisy: thirteen like convolutions got 0.0042 to 0.0068 ms by
differences, 0.0055 to 0.0063 ms alone, and one operator less than nothing. On ONNX Runtime,
`benchmarks/profile_methods.py` holds this method against the runtime's own profiler: shares correlate by
0.994 and more, and none is off by more than 1 % of the whole.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from device_bench.profiling import ROUNDS, Breakdown
from device_bench.protocol import BenchRequest, OperatorTime
from device_bench.runtimes.base import PLAIN_KERNELS, LoadOptions, Model, RuntimeFailure
from device_bench.runtimes.litert import load
from device_bench.runtimes.tflite_cut import Operator, TfliteFile, nearly_nothing
from device_bench.tensors import random_inputs
from device_bench.timing import Clock, sample_round, warm_up

# All operators together get this many times the seconds that the whole gets.
_PARTS_SECONDS = 2.0
# Long enough for a few runs of an operator of microseconds.
_SHORTEST_STRETCH = 0.0005
# More operators than these are not put together to find a piece that can stand alone.
_LONGEST_GROUP = 4
_PLAIN = "cpu-plain"
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1")


class _Part(NamedTuple):
    """Neighbouring operators in a file of their own; nearly always one."""

    operators: tuple[Operator, ...]
    model: Model
    where: str


def profile(path: Path, model: Model, request: BenchRequest, clock: Clock) -> Breakdown:
    """See `device_bench.profiling.Profiler`."""
    file = TfliteFile(path.read_bytes())
    with tempfile.TemporaryDirectory(prefix="device-bench-") as folder:
        opener = _Opener(Path(folder) / "part.tflite", request)
        parts = opener.parts_of(file)
        empty = {where: opener.open(nearly_nothing(), plain) for where, plain in _EMPTY.items()}
    warm_up(model.invoke, request.timing, clock)
    models = [*empty.values(), *(part.model for part in parts)]
    whole, durations = array("q"), [array("q") for _ in models]
    seconds = request.timing.min_seconds / ROUNDS
    stretch = max(_SHORTEST_STRETCH, _PARTS_SECONDS * seconds / len(models))
    for _ in range(ROUNDS):
        whole += sample_round(model.invoke, seconds, clock)
        for each, taken in zip(models, durations, strict=True):
            taken += sample_round(each.invoke, stretch, clock)
    medians = [float(np.median(taken)) / 1e6 for taken in durations]
    cost = dict(zip(empty, medians, strict=False))
    return Breakdown(
        operators=tuple(
            _operator_time(part, ms - cost[part.where])
            for part, ms in zip(parts, medians[len(empty) :], strict=True)
        ),
        whole_ms=float(np.median(whole)) / 1e6,
        method="single operators",
    )


# Where the operator that does nearly nothing runs, and whether the delegate must be kept away for that.
_EMPTY = {"XNNPACK": False, "plain kernels": True}


class _Opener:
    """Loads files that are held in memory, used as the request says."""

    def __init__(self, path: Path, request: BenchRequest) -> None:
        self._path = path
        self._request = request

    def open(self, content: bytes, plain: bool = False) -> Model:
        """A loaded model with inputs."""
        self._path.write_bytes(content)
        accelerator = _PLAIN if plain else self._request.accelerator
        model = load(self._path, LoadOptions(threads=self._request.threads, accelerator=accelerator))
        self._path.unlink()
        model.set_inputs(random_inputs(model.inputs, self._request.seed))
        model.invoke()
        return model

    def parts_of(self, file: TfliteFile) -> list[_Part]:
        """Every operator of the file, each in the smallest group that the interpreter takes."""
        operators = file.operators()
        parts: list[_Part] = []
        start = 0
        while start < len(operators):
            least = start + 1 if self._request.accelerator == _PLAIN else _fused_until(operators, start)
            stop, model = self._smallest(file, start, least, len(operators))
            where = {placement.where for placement in model.placements}
            parts.append(
                _Part(
                    tuple(operators[start:stop]),
                    model,
                    "XNNPACK" if where - set(PLAIN_KERNELS) else "plain kernels",
                )
            )
            start = stop
        return parts

    def _smallest(self, file: TfliteFile, start: int, least: int, count: int) -> tuple[int, Model]:
        """The shortest run of operators from `start` that loads and runs: where it stops, and its model.

        Args:
            least: where it stops at the earliest.
            count: of all operators.
        """
        refused: Exception | None = None
        for stop in range(least, max(least, min(start + _LONGEST_GROUP, count)) + 1):
            try:
                return stop, self.open(file.cut(start, stop))
            except (RuntimeFailure, RuntimeError, ValueError) as error:
                refused = refused or error
        assert refused is not None
        raise refused


def _fused_until(operators: Sequence[Operator], start: int) -> int:
    """Where the run of operators that XNNPACK makes one of ends; what else reads a result prevents it."""
    stop = start + 1
    while stop < len(operators):
        before, behind = operators[stop - 1], operators[stop]
        result = before.outputs[0]
        readers = sum(result in operator.inputs for operator in operators)
        pads = before.kind == "PAD" and behind.kind in _CONVOLUTIONS
        if not (pads or behind.kind in _ACTIVATIONS) or readers != 1 or behind.inputs[0] != result:
            break
        stop += 1
    return stop


def _operator_time(part: _Part, ms: float) -> OperatorTime:
    last = part.operators[-1]
    made = {name for operator in part.operators for name in operator.outputs}
    read = [name for operator in part.operators for name in operator.inputs if name not in made]
    return OperatorTime(
        name=_short(last.outputs[0]) if last.outputs else last.kind,
        operator="+".join(operator.kind for operator in part.operators),
        ms=max(0.0, ms),
        where=part.where,
        inputs=tuple(read),
        outputs=last.outputs,
    )


def _short(name: str) -> str:
    """Where in the model a tensor was made: "Sequential_layer1/BasicBlock_0/Conv2d_conv1".

    Converters write the path of classes and attributes, one such path for each operator that was fused; the
    last is the one with the weights.
    """
    path = [part for part in name.split(";") if "/" in part][-1:] or [name.split(";")[0]]
    steps = [step.split(".")[-1] for step in path[0].split("/") if not step.endswith("_wrapped")]
    return "/".join(step for step in steps if step != "ChannelLastIOWrapper") or name
