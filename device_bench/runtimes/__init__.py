"""The runtimes that a bench knows. Each module imports its library only when it is asked to load."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from device_bench.protocol import RuntimeName

if TYPE_CHECKING:
    from device_bench.runtimes.base import Runtime

MODULES: dict[RuntimeName, str] = {
    RuntimeName.ONNXRUNTIME: "device_bench.runtimes.onnxruntime",
    RuntimeName.LITERT: "device_bench.runtimes.litert",
    RuntimeName.TORCH: "device_bench.runtimes.torch",
}

# What a file name tells about who can run it.
SUFFIXES: dict[str, RuntimeName] = {
    ".onnx": RuntimeName.ONNXRUNTIME,
    ".tflite": RuntimeName.LITERT,
    ".pt2": RuntimeName.TORCH,
}


def import_runtime(module: str) -> Runtime:
    """The runtime in a module, by the module's dotted name (a value of `MODULES`)."""
    return cast("Runtime", import_module(module))
