"""TFLite files on a GPU, through `ai_edge_litert`'s compiled models (WebGPU, OpenCL or Metal).

    python -m device_bench.runtimes.litert_gpu      ends with 0 if a GPU can be used, else with 1

A file runs wholly on the GPU or not at all: with the CPU behind it, LiteRT does not tell which operators
fell back, nor that all of them did. An inference is timed from the inputs in the host's memory to the outputs
there: reading them is what waits for the device.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.protocol import FailureKind, Placement, TensorInfo
from device_bench.runtimes.base import Array, NoAccelerator, RuntimeFailure, first_lines

_PROBE_SECONDS = 60.0


class CompiledLiteRtModel:
    """A TFLite file compiled for a GPU. Built by `load`.

    Args:
        compiled: the library's compiled model.
        described: the file's tensors by their names, as the interpreter describes them.
    """

    def __init__(self, compiled: Any, described: Mapping[str, TensorInfo]) -> None:
        self._compiled = compiled
        signatures = compiled.get_signature_list()
        key = next(iter(signatures))
        sources, sinks = compiled.get_input_tensor_details(key), compiled.get_output_tensor_details(key)
        self._inputs = tuple(described[sources[name]["name"]] for name in signatures[key]["inputs"])
        self._outputs = tuple(described[sinks[name]["name"]] for name in signatures[key]["outputs"])
        _check_fixed((*self._inputs, *self._outputs))
        self._in_buffers = compiled.create_input_buffers(0)
        self._out_buffers = compiled.create_output_buffers(0)
        self._out_sizes = [(int(np.prod(info.shape)), np.dtype(info.dtype)) for info in self._outputs]
        self._arrays: list[Array] = []
        self._results: list[Array] = []

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs in the order of the file's signature."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs in the order of the file's signature."""
        return self._outputs

    @property
    def arena_bytes(self) -> int | None:
        """None: the library does not tell."""
        return None

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Empty: the library does not list them; all are on the GPU."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """None: nothing falls back."""
        return ()

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Give one array per input; `invoke` copies them."""
        self._arrays = [np.ascontiguousarray(array) for array in arrays]

    def invoke(self) -> None:
        """Copy the inputs to the device, run, and copy the outputs back."""
        for buffer, array in zip(self._in_buffers, self._arrays, strict=True):
            buffer.write(array)
        self._compiled.run_by_index(0, self._in_buffers, self._out_buffers)
        self._results = [
            buffer.read(size, dtype)
            for buffer, (size, dtype) in zip(self._out_buffers, self._out_sizes, strict=True)
        ]

    def read_outputs(self) -> list[Array]:
        """The last outputs; each run makes fresh arrays."""
        return [array.reshape(info.shape) for array, info in zip(self._results, self._outputs, strict=True)]


def load(path: Path, described: Mapping[str, TensorInfo], library: Any = None) -> CompiledLiteRtModel:
    """Compile a file for the GPU alone.

    Args:
        described: the file's tensors by their names.
        library: what has `CompiledModel` and `HardwareAccelerator`; None is `ai_edge_litert`.

    Raises:
        NoAccelerator: no GPU can be used on this machine.
        RuntimeFailure: the GPU does not take all of the file.
    """
    if library is None:
        if not is_usable():
            raise NoAccelerator
        library = import_module("ai_edge_litert.compiled_model")
    try:
        compiled = library.CompiledModel.from_file(str(path), hardware_accel=library.HardwareAccelerator.GPU)
    except RuntimeError as error:
        raise _refused(first_lines(error)) from error
    if not compiled.is_fully_accelerated():
        raise _refused("it took a part of the operators")
    return CompiledLiteRtModel(compiled, described)


def _refused(why: str) -> RuntimeFailure:
    return RuntimeFailure(FailureKind.UNSUPPORTED, f"the GPU does not take the whole file: {why}")


@cache
def is_usable() -> bool:
    """Whether a model can be compiled for a GPU here.

    Tried in another process: a driver that is broken would take this one along, and one that works would
    show in its memory.
    """
    command = [sys.executable, "-P", "-m", "device_bench.runtimes.litert_gpu"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _check_fixed(infos: Sequence[TensorInfo]) -> None:
    for info in infos:
        if any(size < 0 for size in info.shape):
            raise RuntimeFailure(
                FailureKind.UNSUPPORTED,
                f"tensor {info.name!r} of shape {list(info.shape)} has an open size, which a compiled model "
                "cannot have: export the model with a fixed batch",
            )


def smallest_model() -> bytes:
    """One RELU over float32 [1, 4]: the least that a GPU can be asked to take."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    model, graph, code, relu = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.RELU
    code.version = 1
    graph.tensors = []
    for name in ("x", "y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [1, 4], schema.TensorType.FLOAT32, 0
        graph.tensors.append(tensor)
    relu.inputs, relu.outputs = [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [relu]
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(512)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def main() -> int:
    """Compile the smallest model for the GPU alone; 0 if that works."""
    try:
        from ai_edge_litert.compiled_model import CompiledModel, HardwareAccelerator

        CompiledModel.from_buffer(smallest_model(), hardware_accel=HardwareAccelerator.GPU)
    except (ImportError, AttributeError, RuntimeError):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
