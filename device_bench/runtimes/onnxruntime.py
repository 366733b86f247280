"""ONNX Runtime on the CPU: sequential execution, all graph optimisations, `threads` intra-op threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from device_bench.errors import MissingExtraError
from device_bench.protocol import FailureKind, TensorInfo
from device_bench.runtimes.base import Array, OperatorCounts, RuntimeFailure, first_lines

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}

# ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal. Errors reach us as exceptions.
_FATAL_ONLY = 4


def _library() -> ModuleType:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:  # one that is there and broken says so itself
        raise MissingExtraError("onnxruntime", "onnxruntime") from error
    return onnxruntime  # type: ignore[no-any-return]


def version() -> str:
    """ONNX Runtime's version, for example "1.31.1"."""
    return str(_library().__version__)


class OnnxModel:
    """An ONNX file in a session. Built by `load`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._output_names = [output.name for output in session.get_outputs()]
        self._feeds: dict[str, Array] = {}
        self._results: list[Array] = []

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs in the file's order; a symbolic size is −1."""
        return tuple(_tensor_info(node) for node in self._session.get_inputs())

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs in the file's order; a symbolic size is −1."""
        return tuple(_tensor_info(node) for node in self._session.get_outputs())

    @property
    def arena_bytes(self) -> int | None:
        """None: the Python API does not tell what the arena planned."""
        return None

    @property
    def operators(self) -> OperatorCounts | None:
        """None: the CPU provider has no delegates."""
        return None

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Feed one array per input; the session reads them in place."""
        names = [node.name for node in self._session.get_inputs()]
        self._feeds = dict(zip(names, arrays, strict=True))

    def invoke(self) -> None:
        """`session.run` with names given: what a bare loop over the library costs."""
        self._results = self._session.run(self._output_names, self._feeds)

    def read_outputs(self) -> list[Array]:
        """The last outputs; the session made fresh arrays for them."""
        return self._results


def load(path: Path, threads: int) -> OnnxModel:
    """Open a session on the CPU provider.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        RuntimeFailure: the file is no ONNX model, or an operator has no implementation.
        MemoryError: no room to load it.
    """
    library = _library()
    library.set_default_logger_severity(_FATAL_ONLY)
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    try:
        session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except MemoryError:
        raise
    except Exception as error:  # the binding's exceptions share no base but Exception
        raise _failure(error) from error
    return OnnxModel(session)


def _tensor_info(node: Any) -> TensorInfo:
    if node.type not in _DTYPES:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED, f"tensor {node.name!r} is {node.type}; known: {', '.join(_DTYPES)}"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorInfo(name=node.name, shape=shape, dtype=_DTYPES[node.type])


def _failure(error: Exception) -> RuntimeFailure:
    """Sort ONNX Runtime's error by its class and, where one class means two things, by its words."""
    message = first_lines(error)
    if "bad_alloc" in message or "allocate memory" in message or "bad allocation" in message:
        return RuntimeFailure(FailureKind.OUT_OF_MEMORY, message)
    if type(error).__name__ == "NotImplemented" or "No Op registered" in message:
        return RuntimeFailure(FailureKind.UNSUPPORTED, message)
    if "not a registered function/op" in message or "under development" in message:
        return RuntimeFailure(FailureKind.UNSUPPORTED, message)
    return RuntimeFailure(FailureKind.NOT_A_MODEL, message)
