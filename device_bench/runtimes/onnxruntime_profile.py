"""ONNX Runtime's own profiler, less what it costs itself.

The time that the profiler notes for an operator includes its own writing of sizes and shapes, the more the
more inputs the operator has, 2 to 3 µs: on an INT8 ResNet-20 (43 operators, 0.22 ms) its notes sum to 1.5
times the whole. So a chain of operators that do nearly nothing is profiled too, with one input each and with
nine; what the profiler notes for them above their time without it (the slope between a long and a short
chain) is taken off each operator by its number of inputs. Seen with ONNX Runtime 1.31 on one core of an x86
server, one thread: the operators of eight files (12 to 126 operators, float and INT8, 0.1 to 0.5 ms) sum to
between 0.95 and 1.01 of the whole; on a core shared with other processes to 1.14.

Sessions with and without the profiler take turns in one process.
"""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from device_bench.profiling import ROUNDS, Breakdown, trimmed_mean
from device_bench.protocol import BenchRequest, FailureKind, OperatorTime
from device_bench.runtimes.base import Model, RuntimeFailure, first_lines
from device_bench.runtimes.onnxruntime import OnnxModel, session_settings
from device_bench.runtimes.protobuf_wire import Node, chain_of_max, read_nodes
from device_bench.tensors import random_inputs
from device_bench.timing import Clock, sample_round, warm_up

# About a kilobyte of JSON each; the profiler itself stops at a million.
_MOST_EVENTS = 40_000
# The profiled session's first runs allocate.
_COLD_RUNS = 5
_MOST_RUNS = 60
_CHAIN = 64
_FEW_INPUTS, _MANY_INPUTS = 1, 9
_KERNEL = "_kernel_time"
_BLOCKED = "_nchwc"


class _Traced(NamedTuple):
    """One operator of the trace: its durations in µs, run by run."""

    name: str
    operator: str
    provider: str
    inputs: int
    durations: list[int]


class _Overhead(NamedTuple):
    """What the profiler adds to an operator's time, in µs: with one input, and for each more."""

    one_input: float
    another: float

    def of(self, inputs: int) -> float:
        return self.one_input + self.another * (inputs - _FEW_INPUTS)


def profile(path: Path, model: Model, request: BenchRequest, clock: Clock) -> Breakdown:
    """See `device_bench.profiling.Profiler`."""
    warm_up(model.invoke, request.timing, clock)
    with tempfile.TemporaryDirectory(prefix="device-bench-") as folder:
        profiled, nodes = _open_profiled(path, request, Path(folder))
        runs = min(_MOST_RUNS, max(1, _MOST_EVENTS // max(1, len(nodes)) // ROUNDS))
        whole = array("q")
        for _ in range(_COLD_RUNS):
            profiled.invoke()
        for _ in range(ROUNDS):
            whole += sample_round(model.invoke, request.timing.min_seconds / ROUNDS, clock)
            for _ in range(runs):
                profiled.invoke()
        traced = _read_trace(profiled)
        overhead = _overhead(Path(folder), request, clock)
    finder = _Finder(nodes, read_nodes(path.read_bytes()))
    return Breakdown(
        operators=tuple(_operator_time(found, finder.of(found), overhead) for found in traced),
        whole_ms=float(np.median(whole)) / 1e6,
        method="profiler",
    )


class _ProfiledModel(OnnxModel):
    """A session whose profiler runs until `end` is called."""

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._profiled = session

    def end(self) -> Path:
        """Stop the profiler; the file with its trace."""
        return Path(self._profiled.end_profiling())


def _open_profiled(path: Path, request: BenchRequest, folder: Path) -> tuple[_ProfiledModel, list[Node]]:
    """The file with the profiler on, and the nodes that ONNX Runtime made of it."""
    optimized = folder / "optimized.onnx"
    settings = session_settings(request.threads)
    settings.optimized_model_filepath = str(optimized)
    profiled = _session(str(path), settings, folder / "trace")
    profiled.set_inputs(random_inputs(profiled.inputs, request.seed))
    return profiled, read_nodes(optimized.read_bytes())


def _session(model: str | bytes, settings: Any, trace: Path | None) -> _ProfiledModel:
    import onnxruntime

    settings.enable_profiling = trace is not None
    if trace is not None:
        settings.profile_file_prefix = str(trace)
    try:
        return _ProfiledModel(
            onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        )
    except Exception as error:  # the binding's exceptions share no base but Exception
        raise RuntimeFailure(FailureKind.RUNTIME_ERROR, first_lines(error)) from error


def _read_trace(profiled: _ProfiledModel) -> list[_Traced]:
    """The operators in the order of their first run, without the runs that were cold.

    An operator that runs inside another (the body of a loop) is part of that.
    """
    events = json.loads(profiled.end().read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_KERNEL)]
    found: dict[str, _Traced] = {}
    end = -1
    for event in sorted(kernels, key=lambda e: int(e["ts"])):
        if event["ts"] < end:
            continue
        end = event["ts"] + event["dur"]
        arguments = event["args"]
        # Node indices are unique where names need not be.
        traced = found.setdefault(
            str(arguments["node_index"]),
            _Traced(
                name=event["name"].removesuffix(_KERNEL),
                operator=arguments["op_name"],
                provider=arguments.get("provider", ""),
                inputs=len(arguments.get("input_type_shape", ())),
                durations=[],
            ),
        )
        traced.durations.append(int(event["dur"]))
    return [each._replace(durations=each.durations[_COLD_RUNS:]) for each in found.values()]


def _overhead(folder: Path, request: BenchRequest, clock: Clock) -> _Overhead:
    few = _overhead_at(_FEW_INPUTS, folder, request, clock)
    many = _overhead_at(_MANY_INPUTS, folder, request, clock)
    return _Overhead(max(0.0, few), max(0.0, many - few) / (_MANY_INPUTS - _FEW_INPUTS))


def _overhead_at(inputs: int, folder: Path, request: BenchRequest, clock: Clock) -> float:
    """What the profiler adds to an operator of that many inputs, in µs."""
    import onnxruntime

    settings = session_settings(request.threads)
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    long = chain_of_max(_CHAIN, inputs)
    sessions = [
        _session(content, settings, trace)
        for content, trace in (
            (long, None),
            (chain_of_max(1, inputs), None),
            (long, folder / f"overhead{inputs}"),
        )
    ]
    for session in sessions:
        session.set_inputs([np.ones((1, 1, 1, 1), np.float32)])
    plain, short, profiled = sessions
    whole, start = array("q"), array("q")
    for _ in range(_COLD_RUNS):
        profiled.invoke()
    for _ in range(ROUNDS):
        whole += sample_round(plain.invoke, 0.005, clock)
        start += sample_round(short.invoke, 0.001, clock)
        for _ in range(10):
            profiled.invoke()
    noted = trimmed_mean([us for each in _read_trace(profiled) for us in each.durations])
    return noted - (float(np.median(whole)) - float(np.median(start))) / (_CHAIN - 1) / 1e3


class _Finder:
    """Finds the nodes of the optimized file that the trace speaks of. Ask in the order of the run.

    Args:
        nodes: of the optimized file.
        originals: of the file itself.
    """

    def __init__(self, nodes: Sequence[Node], originals: Sequence[Node]) -> None:
        self._maker = {name: node for node in originals for name in node.outputs}
        self._named = {node.name: node for node in nodes if node.name}
        # The trace makes a name up for these; both are in the order of the run.
        self._nameless = [node for node in nodes if not node.name]

    def of(self, traced: _Traced) -> Node | None:
        """The node; None for one that is not in the main graph."""
        if traced.name in self._named:
            return self._with_names(self._named[traced.name])
        fitting = (i for i, node in enumerate(self._nameless) if node.operator == traced.operator)
        place = next(fitting, None)
        return None if place is None else self._nameless.pop(place)

    def _with_names(self, node: Node) -> Node:
        """With the constants that the file's own operator reads.

        A convolution in blocks of channels has its weights laid out anew under other names; it is called
        after what comes out of it in the file.
        """
        if not node.name.endswith(_BLOCKED):
            return node
        seen: set[str] = set()
        front = [node.name.removesuffix(_BLOCKED)]
        while front:
            maker = self._maker.get(front.pop(0))
            if maker is None or maker.outputs[0] in seen:
                continue
            seen.add(maker.outputs[0])
            if maker.operator == node.operator:
                constants = tuple(name for name in maker.inputs if name not in self._maker)
                return node._replace(inputs=(*node.inputs, *constants))
            # Activations and additions were fused behind it.
            front += maker.inputs
        return node


def _operator_time(traced: _Traced, node: Node | None, overhead: _Overhead) -> OperatorTime:
    return OperatorTime(
        name=traced.name,
        operator=traced.operator,
        ms=max(0.0, trimmed_mean(traced.durations) - overhead.of(traced.inputs)) / 1e3,
        where=traced.provider,
        inputs=() if node is None else node.inputs,
        outputs=() if node is None else node.outputs,
    )
