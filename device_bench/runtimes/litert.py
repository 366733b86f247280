"""TensorFlow Lite files through whichever interpreter the board has.

"cpu" is what the library does by default, which is XNNPACK where it was built with it; "cpu-plain" is
TensorFlow Lite's own kernels alone; "gpu" is what `litert_gpu` does, with `ai_edge_litert` alone.

Looked for in this order: `ai_edge_litert`, `tflite_runtime` (ended at 2.14, still on many boards),
`tensorflow` (`tf.lite`). All three have the same interpreter class.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version as distribution_version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from device_bench.errors import MissingExtraError
from device_bench.protocol import FailureKind, Placement, TensorInfo
from device_bench.runtimes import litert_gpu
from device_bench.runtimes.base import (
    Array,
    LoadOptions,
    Model,
    NoAccelerator,
    RuntimeFailure,
    first_lines,
    placements_of,
)

# What the interpreter calls a node that a delegate put in place of others.
_DELEGATE = "DELEGATE"
_UNSUPPORTED = ("unresolved custom op", "Didn't find op", "builtin_code out of range")


class _Library(NamedTuple):
    """The module that has `Interpreter` and `OpResolverType`, and the name and version it came from."""

    module: Any
    version: str


def _library() -> _Library:
    for module, distribution in (
        ("ai_edge_litert.interpreter", "ai-edge-litert"),
        ("tflite_runtime.interpreter", "tflite-runtime"),
    ):
        try:
            found = import_module(module)
        except ModuleNotFoundError:  # one that is there and broken says so itself
            continue
        return _Library(found, f"{distribution} {distribution_version(distribution)}")
    try:
        tensorflow = import_module("tensorflow")
    except ModuleNotFoundError as error:
        raise MissingExtraError("ai_edge_litert", "litert") from error
    return _Library(
        SimpleNamespace(
            Interpreter=tensorflow.lite.Interpreter,
            OpResolverType=tensorflow.lite.experimental.OpResolverType,
        ),
        f"tensorflow {tensorflow.__version__}",
    )


def version() -> str:
    """Library and version, for example "ai-edge-litert 2.3.0"."""
    return _library().version


def accelerators() -> tuple[str, ...]:
    """The library's default, its plain kernels, and a GPU if a model can be loaded for it."""
    found = _library()
    gpu = found.version.startswith("ai-edge-litert") and litert_gpu.is_usable()
    return ("cpu", "cpu-plain", "gpu") if gpu else ("cpu", "cpu-plain")


class LiteRtModel:
    """A TFLite file with its tensors allocated. Built by `load`."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self._inputs: list[dict[str, Any]] = interpreter.get_input_details()
        self._outputs: list[dict[str, Any]] = interpreter.get_output_details()
        self._shapes = [tuple(int(n) for n in detail["shape"]) for detail in self._inputs]

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs of the main subgraph; a size left open is −1."""
        return tuple(_tensor_info(detail) for detail in self._inputs)

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs of the main subgraph; a size left open is −1."""
        return tuple(_tensor_info(detail) for detail in self._outputs)

    @property
    def arena_bytes(self) -> int | None:
        """None: the Python interpreter does not tell what its arena planned."""
        return None

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Operators on "XNNPACK" and on "plain kernels"; empty where the library hides its nodes."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None:
            return ()
        nodes = details()
        taken = delegated_nodes(nodes)
        return placements_of(
            ("XNNPACK" if i in taken else "plain kernels", str(node["op_name"]))
            for i, node in enumerate(nodes)
            if node["op_name"] != _DELEGATE
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """None: that some operators are not XNNPACK's is the rule, and `placements` has them."""
        return ()

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Copy one array per input into the interpreter; another size of an open dimension reallocates."""
        changed = [a.shape != shape for a, shape in zip(arrays, self._shapes, strict=True)]
        if any(changed):
            for detail, array in zip(self._inputs, arrays, strict=True):
                self._interpreter.resize_tensor_input(detail["index"], array.shape, strict=True)
            self._interpreter.allocate_tensors()
            self._shapes = [array.shape for array in arrays]
        for detail, array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(detail["index"], array)

    def invoke(self) -> None:
        """One inference."""
        self._interpreter.invoke()

    def read_outputs(self) -> list[Array]:
        """Copies of the output tensors."""
        return [self._interpreter.get_tensor(detail["index"]) for detail in self._outputs]


def load(path: Path, options: LoadOptions) -> Model:
    """Open an interpreter and plan its memory.

    Raises:
        MissingExtraError: no interpreter is installed.
        NoAccelerator: there is no such way to run it here.
        RuntimeFailure: the file is no TFLite model, or an operator is unknown.
        MemoryError: no room to load it.
    """
    library, name = _library()
    resolver = library.OpResolverType
    if options.accelerator not in ("cpu", "cpu-plain", "gpu"):
        raise NoAccelerator
    if options.accelerator == "gpu" and not name.startswith("ai-edge-litert"):
        raise NoAccelerator
    chosen = resolver.AUTO if options.accelerator == "cpu" else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = library.Interpreter(
            model_path=str(path), num_threads=options.threads, experimental_op_resolver_type=chosen
        )
        if options.accelerator == "gpu":
            details = (*interpreter.get_input_details(), *interpreter.get_output_details())
            return litert_gpu.load(path, {detail["name"]: _tensor_info(detail) for detail in details})
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        message = first_lines(error)
        unsupported = any(words in message for words in _UNSUPPORTED)
        kind = FailureKind.UNSUPPORTED if unsupported else FailureKind.NOT_A_MODEL
        raise RuntimeFailure(kind, message) from error
    return LiteRtModel(interpreter)


def delegated_nodes(nodes: Sequence[dict[str, Any]]) -> set[int]:
    """Which of the interpreter's nodes a DELEGATE node replaced; its node list keeps both.

    A delegate computes its outputs from its inputs, so the replaced nodes are those met when walking back
    from the one to the other.

    Args:
        nodes: per node `op_name`, `inputs` and `outputs` (tensor indices; −1 is an absent optional input).

    Returns:
        Positions in `nodes`.
    """
    plain = [i for i, node in enumerate(nodes) if node["op_name"] != _DELEGATE]
    maker = {int(tensor): i for i in plain for tensor in nodes[i]["outputs"]}
    taken: set[int] = set()
    for delegate in nodes:
        if delegate["op_name"] != _DELEGATE:
            continue
        edge = {int(tensor) for tensor in delegate["inputs"]}
        front = [int(tensor) for tensor in delegate["outputs"]]
        while front:
            tensor = front.pop()
            if tensor in edge or tensor not in maker or maker[tensor] in taken:
                continue
            taken.add(maker[tensor])
            front.extend(int(i) for i in nodes[maker[tensor]]["inputs"])
    return taken


def _tensor_info(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    quantized = float(scale) != 0.0
    return TensorInfo(
        name=detail["name"],
        shape=tuple(int(size) for size in detail.get("shape_signature", detail["shape"])),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )
