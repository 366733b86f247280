"""Does measuring operators one by one tell what a profiler tells? On ONNX Runtime both can be had.

    python benchmarks/profile_methods.py [--models resnet20 dscnn mobilenetv2] [--folder FOLDER]
                                         [--seconds 1] [--json]

LiteRT's Python interpreter has no profiler, so its profile cuts every operator out of the file and measures
it alone. Here the same is done with the operators that ONNX Runtime makes of an INT8 file (its optimized
graph, which it loads again), in rounds that take turns with the whole, less the cost of an operator that does
nearly nothing; the shares are held against those of the profile from ONNX Runtime's own profiler. Weights are
random.
Bind it to one quiet core: `taskset -c 1 python …`.
"""

from __future__ import annotations

import argparse
import tempfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure, finish

from device_bench.local import profile
from device_bench.protocol import BenchRequest, Failure, Profile, RuntimeName, TensorInfo, TimingPolicy
from device_bench.runtimes.onnxruntime import session_settings
from device_bench.runtimes.protobuf_wire import chain_of_max
from device_bench.tensors import random_inputs
from device_bench.timing import default_clock, sample_round

SHAPES = {"resnet20": (3, 32, 32), "dscnn": (1, 49, 10), "mobilenetv2": (3, 32, 32)}
ROUNDS = 12
# The issue allows a rest of 10 % of the whole; one operator may be off by half of that.
LARGEST_DIFFERENCE = 0.05
LEAST_CORRELATION = 0.95


def make(name: str, folder: Path) -> Path:
    """The INT8 ONNX file of a model of the zoo, with random weights; made once."""
    path = folder / f"{name}.int8.onnx"
    if path.is_file():
        return path
    import torch

    from exporters.base import ArtifactMetadata
    from exporters.to_onnx import OnnxExporter
    from pipeline.zoo import build

    torch.manual_seed(0)
    shape = SHAPES[name]
    samples = np.random.default_rng(0).standard_normal((8, *shape)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    OnnxExporter().export(build(name, shape, 10).eval(), path, "int8", samples, ArtifactMetadata())
    return path


class Alone:
    """One operator, or the whole file, in a session of its own."""

    def __init__(self, content: bytes, *, optimize: bool) -> None:
        import onnxruntime

        settings = session_settings(1)
        if not optimize:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._feeds: dict[str, Any] = {}
        self.durations = array("q")

    def feed(self, values: dict[str, Any]) -> None:
        """Choose its inputs among tensors by name."""
        self._feeds = {value.name: values[value.name] for value in self._session.get_inputs()}

    def run(self) -> dict[str, Any]:
        """Its outputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, self._feeds), strict=True))

    def sample(self, seconds: float) -> None:
        """Time it for a while."""
        self.durations += sample_round(
            lambda: self._session.run(self._outputs, self._feeds), seconds, default_clock
        )

    @property
    def ms(self) -> float:
        """Median of all samples."""
        return float(np.median(self.durations)) / 1e6


def optimized(path: Path) -> Any:
    """The `onnx.ModelProto` that ONNX Runtime runs."""
    import onnx
    import onnxruntime

    settings = session_settings(1)
    with tempfile.TemporaryDirectory() as folder:
        settings.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        return onnx.load(settings.optimized_model_filepath)


def cut(model: Any, node: Any, values: dict[str, Any]) -> bytes:
    """A file of one node, its constants kept; `values` tell the types of what it reads."""
    import onnx
    from onnx import helper

    constants = [tensor for tensor in model.graph.initializer if tensor.name in node.input]
    held = {tensor.name for tensor in constants}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(values[name].dtype), values[name].shape
        )
        for name in dict.fromkeys(node.input)
        if name and name not in held
    ]
    # The runtime finds the types of outputs out by itself.
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs, constants)
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(single.SerializeToString())


def one_by_one(path: Path, seconds: float) -> tuple[dict[str, float], float]:
    """Each operator's time alone by its name, and the whole's, in ms."""
    model = optimized(path)
    first = model.graph.input[0]
    shape = tuple(d.dim_value or 1 for d in first.type.tensor_type.shape.dim)
    (given,) = random_inputs([TensorInfo(name=first.name, shape=shape, dtype="float32")], 0)
    values: dict[str, Any] = {first.name: given}
    whole = Alone(path.read_bytes(), optimize=True)
    empty = Alone(chain_of_max(1, 1), optimize=False)
    parts: dict[str, Alone] = {}
    for node in model.graph.node:
        part = parts[node.name] = Alone(cut(model, node, values), optimize=False)
        part.feed(values)
        values |= part.run()
    whole.feed(values)
    empty.feed({"t0": np.ones((1, 1, 1, 1), np.float32)})
    stretch = max(0.0005, 2 * seconds / ROUNDS / len(parts))
    for _ in range(ROUNDS):
        whole.sample(seconds / ROUNDS)
        for part in (empty, *parts.values()):
            part.sample(stretch)
    return {name: max(0.0, part.ms - empty.ms) for name, part in parts.items()}, whole.ms


def profiled(path: Path, seconds: float) -> Profile:
    """What `device-bench run --profile` tells."""
    timing = TimingPolicy(min_seconds=seconds)
    found = profile(BenchRequest(path=str(path), runtime=RuntimeName.ONNXRUNTIME, timing=timing))
    if isinstance(found, Failure):
        raise SystemExit(f"{path.name}: {found.kind.value}: {found.message}")
    return found


def compare(name: str, path: Path, seconds: float) -> Figure:
    """The two methods' shares of one model."""
    told = profiled(path, seconds)
    alone, whole_ms = one_by_one(path, seconds)
    if {operator.name for operator in told.operators} != set(alone):
        raise SystemExit(f"{name}: the profiler saw other operators than the optimized graph has")
    theirs = np.array([operator.ms / told.whole_ms for operator in told.operators])
    ours = np.array([alone[operator.name] / whole_ms for operator in told.operators])
    correlation = float(np.corrcoef(theirs, ours)[0, 1])
    largest = float(np.abs(theirs - ours).max())
    where = told.operators[int(np.abs(theirs - ours).argmax())]
    return Figure(
        what=f"{name}, {len(alone)} operators, {whole_ms:.3f} ms",
        asked=f"correlation at least {LEAST_CORRELATION}, no share off by more than {LARGEST_DIFFERENCE:.0%}",
        measured=f"correlation {correlation:.3f}; {where.operator} {where.name} off by {largest:.1%}; "
        f"sums {theirs.sum():.2f} (profiler) and {ours.sum():.2f} (one by one) of the whole",
        reached=correlation >= LEAST_CORRELATION and largest <= LARGEST_DIFFERENCE,
        details={"correlation": correlation, "largest": largest, "sums": [theirs.sum(), ours.sum()]},
    )


def main() -> int:
    """Compare the methods on each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "edgeloop-profile-models"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="for each whole file and method")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    figures = [compare(name, make(name, given.folder), given.seconds) for name in given.models]
    return finish(figures, "operators one by one against ONNX Runtime's profiler", given.json)


if __name__ == "__main__":
    raise SystemExit(main())
