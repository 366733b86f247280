"""What someone would write who has never heard of a bench: load, warm up, time runs, print their median.

    python benchmarks/bare_loop.py onnxruntime|litert|litert-benchmark FILE SECONDS WARMUP_SECONDS FEWEST

The third word runs the tool of that name that ai-edge-litert brings, in this process and unchanged, and reads
the times that it hands to its own percentiles: what it prints is rounded to 0.01 ms. Nothing of edgeloop's is
imported here.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def onnxruntime_run(path: str) -> Callable[[], object]:
    """One inference of an ONNX file, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in source.shape]
    feeds = {source.name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    names = [output.name for output in session.get_outputs()]
    return lambda: session.run(names, feeds)


def litert_run(path: str) -> Callable[[], object]:
    """One inference of a TFLite file, one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    (source,) = interpreter.get_input_details()
    rng = np.random.default_rng(0)
    interpreter.set_tensor(source["index"], rng.standard_normal(source["shape"], dtype=np.float32))
    run: Callable[[], object] = interpreter.invoke
    return run


def loop(run: Callable[[], object], seconds: float, warmup: float, fewest: int) -> list[float]:
    """Milliseconds of single runs."""
    stop = time.perf_counter() + warmup
    while time.perf_counter() < stop:
        run()
    times = []
    stop = time.perf_counter() + seconds
    while True:
        before = time.perf_counter()
        run()
        after = time.perf_counter()
        times.append((after - before) * 1e3)
        if after >= stop and len(times) >= fewest:
            return times


def tool_times(path: str, seconds: float, warmup: float, fewest: int) -> list[float]:
    """Milliseconds of single runs, as litert-benchmark takes them."""
    from ai_edge_litert.tools import benchmark_litert_model as tool

    once = statistics.median(loop(litert_run(path), min(seconds, 0.05), 0, 3)) / 1e3
    taken: list[float] = []
    percentile = tool.percentile

    def noting(ordered: list[float], p: float) -> Any:
        taken[:] = ordered
        return percentile(ordered, p)

    tool.percentile = noting
    sys.argv = [
        "litert-benchmark",
        f"--model={path}",
        f"--num_runs={max(fewest, round(seconds / once))}",
        f"--warmup_runs={max(5, round(warmup / once))}",
        "--num_threads=1",
    ]
    with contextlib.redirect_stdout(sys.stderr):
        tool.run_benchmark(tool.parse_args())
    return taken


def main() -> None:
    """Print the median and the number of runs as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("who", choices=("onnxruntime", "litert", "litert-benchmark"))
    parser.add_argument("file")
    parser.add_argument("seconds", type=float)
    parser.add_argument("warmup", type=float)
    parser.add_argument("fewest", type=int)
    given = parser.parse_args()
    if given.who == "litert-benchmark":
        times = tool_times(given.file, given.seconds, given.warmup, given.fewest)
    else:
        run = onnxruntime_run(given.file) if given.who == "onnxruntime" else litert_run(given.file)
        times = loop(run, given.seconds, given.warmup, given.fewest)
    print(json.dumps({"p50_ms": statistics.median(times), "runs": len(times)}))


if __name__ == "__main__":
    main()
