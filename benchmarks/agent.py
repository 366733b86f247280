"""What an agent costs: at rest, and on top of a measurement.

    python benchmarks/agent.py [--repeats 15] [--idle 60] [--json]

At rest: resident memory and processor time of `device-bench serve` over a minute, before its first job and
after some. On top: the whole of `AgentBench.measure` for a file of 1 MB that the agent has never seen, over
TLS on loopback, asked for a single sample and no warm-up, so that what remains is what is not measuring:
connection, upload, hashing, the start of the child, import of the runtime, loading, the answer. Beside it the
same through `device_bench.local.measure`. Medians over the repeats.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from figures import Figure, finish

from device_bench import local
from device_bench.client import AgentBench
from device_bench.connection import AgentAddress
from device_bench.protocol import BenchRequest, Failure, Measurement, TimingPolicy
from device_bench.runtimes import SUFFIXES
from device_bench.wire import Pairing

RESIDENT_LIMIT_BYTES = 80e6
IDLE_LIMIT = 0.01
OVERHEAD_LIMIT_SECONDS = 0.3
# The least that can be asked for, so that nearly all of the time is overhead.
_ONE_SAMPLE = TimingPolicy(warmup_runs=1, warmup_seconds=0, min_samples=1, min_seconds=0)
_SIDE = 512  # 512 × 512 float32 weights: 1 MiB
_COMMAND = (sys.executable, "-c", "from device_bench.cli import main; main()")


class Agent(NamedTuple):
    """A running agent."""

    address: AgentAddress
    process: psutil.Process


@contextmanager
def serving(state: Path) -> Iterator[Agent]:
    """`device-bench init` and `device-bench serve` on a free port of loopback."""
    made = subprocess.run(
        [*_COMMAND, "init", "--state", state, "--json"], check=True, capture_output=True, text=True
    )
    token = Pairing.from_line(json.loads(made.stdout)["pairing"]).token
    with (
        (state / "log").open("w+") as log,
        subprocess.Popen(
            [*_COMMAND, "serve", "--state", state, "--host", "127.0.0.1", "--port", "0"], stderr=log
        ) as process,
    ):
        try:
            while not (found := re.search(r"serving on (\S+:\d+),", (state / "log").read_text())):
                if process.poll() is not None:
                    raise SystemExit(f"the agent did not start: {(state / 'log').read_text()}")
                time.sleep(0.05)
            certificate = (state / "certificate.pem").read_text()
            address = AgentAddress(url=found[1], token=token, certificate=certificate)
            yield Agent(address, psutil.Process(process.pid))
        finally:
            process.terminate()


def write_onnx(path: Path, seed: int) -> None:
    """y = x @ w with a weight of 1 MiB."""
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.random.default_rng(seed).standard_normal((_SIDE, _SIDE)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "megabyte",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, _SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, _SIDE])],
        [numpy_helper.from_array(weight, "w")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def write_tflite(path: Path, seed: int) -> None:
    """One fully connected layer with a weight of 1 MiB, written through the schema's object API."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    weight = np.random.default_rng(seed).standard_normal((_SIDE, _SIDE)).astype(np.float32)

    def tensor(name: str, shape: list[int], buffer: int) -> object:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name, shape, buffer, schema.TensorType.FLOAT32
        return made

    code, layer, buffer = schema.OperatorCodeT(), schema.OperatorT(), schema.BufferT()
    graph, model = schema.SubGraphT(), schema.ModelT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 1
    layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, -1], [2]
    layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    layer.builtinOptions = schema.FullyConnectedOptionsT()
    buffer.data = weight.reshape(-1).view(np.uint8)
    graph.tensors = [tensor("x", [1, _SIDE], 0), tensor("w", [_SIDE, _SIDE], 1), tensor("y", [1, _SIDE], 0)]
    graph.inputs, graph.outputs, graph.operators = [0], [2], [layer]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT(), buffer]
    builder = flatbuffers.Builder(1 << 21)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def seconds_of(measure: Callable[[BenchRequest], Measurement | Failure], path: Path) -> float:
    """How long a measurement takes, less its own samples."""
    request = BenchRequest(path=str(path), runtime=SUFFIXES[path.suffix], timing=_ONE_SAMPLE)
    started = time.perf_counter()
    outcome = measure(request)
    took = time.perf_counter() - started
    if isinstance(outcome, Failure):
        raise SystemExit(f"{path.name}: {outcome.kind.value}: {outcome.message}")
    return took - sum(outcome.samples_ns) / 1e9


def overhead(agent: Agent, suffix: str, repeats: int, folder: Path) -> Figure:
    """One row: far and near take turns, each on a file of its own."""
    write = write_onnx if suffix == ".onnx" else write_tflite
    far, near = [], []
    for number in range(repeats + 1):
        paths = [folder / f"{where}-{number}{suffix}" for where in ("far", "near")]
        for seed, path in enumerate(paths):
            write(path, 2 * number + seed)
        far.append(seconds_of(AgentBench(agent.address).measure, paths[0]))
        near.append(seconds_of(local.measure, paths[1]))
    # The first ones read the library from disk and, near, the memory of a process without a model.
    far, near = far[1:], near[1:]
    whole, here = statistics.median(far), statistics.median(near)
    extra = statistics.median(a - b for a, b in zip(far, near, strict=True))
    return Figure(
        what=f"a remote measurement of 1 MB, {SUFFIXES[suffix].value}, without the measuring",
        asked=f"< {OVERHEAD_LIMIT_SECONDS} s with the child's start",
        measured=f"{whole:.3f} s (largest {max(far):.3f}); local {here:.3f} s, so {extra:.3f} s more",
        reached=whole < OVERHEAD_LIMIT_SECONDS,
        details={"remote_s": far, "local_s": near, "difference_s": extra},
    )


def idle(agent: Agent, when: str, seconds: float) -> list[Figure]:
    """Two rows: memory and processor time."""

    def busy_seconds() -> float:
        times = agent.process.cpu_times()
        return float(times.user + times.system)

    time.sleep(2)
    before, started = busy_seconds(), time.monotonic()
    time.sleep(seconds)
    share = (busy_seconds() - before) / (time.monotonic() - started)
    resident = agent.process.memory_info().rss
    assert not agent.process.children(), "an idle agent has no children"
    return [
        Figure(
            f"idle agent {when}: resident memory",
            f"< {RESIDENT_LIMIT_BYTES / 1e6:.0f} MB",
            f"{resident / 1e6:.1f} MB",
            resident < RESIDENT_LIMIT_BYTES,
            {"resident_bytes": resident},
        ),
        Figure(
            f"idle agent {when}: processor time over {seconds:g} s",
            f"< {IDLE_LIMIT:.0%}",
            f"{share:.3%}",
            share < IDLE_LIMIT,
            {"share": share},
        ),
    ]


def main() -> int:
    """Measure and print; exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--idle", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "state") as agent:
        figures = idle(agent, "before its first job", given.idle)
        for suffix in (".onnx", ".tflite"):
            figures.append(overhead(agent, suffix, given.repeats, Path(folder)))
        figures += idle(agent, f"after {2 * (given.repeats + 1)} jobs", given.idle)
    return finish(figures, "What an agent costs", given.json)


if __name__ == "__main__":
    sys.exit(main())
