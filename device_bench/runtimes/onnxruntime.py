"""ONNX Runtime: sequential execution, all graph optimisations, `threads` intra-op threads.

An accelerator is an execution provider by its short name: "cuda" is CUDAExecutionProvider. The CPU takes what
a provider leaves; such operators are named in the notes, and a file of which a provider takes nothing fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from device_bench.errors import MissingExtraError
from device_bench.protocol import FailureKind, Placement, TensorInfo
from device_bench.runtimes.base import (
    Array,
    LoadOptions,
    NoAccelerator,
    RuntimeFailure,
    fallback_note,
    first_lines,
    is_want_of_memory,
    placements_of,
)
from device_bench.runtimes.onnxruntime_arena import ArenaLog

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

_SUFFIX = "ExecutionProvider"
_CPU = "CPUExecutionProvider"
# It sends a model's work to a cloud service, so it is nothing of this machine's.
_ELSEWHERE = ("AzureExecutionProvider",)

# ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal. Errors reach us as exceptions.
_INFO = 1
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


def accelerators() -> tuple[str, ...]:
    """The CPU, and the short names of the other providers that this build of the library has."""
    found = _providers()
    return ("cpu", *(name for name in found if name != "cpu"))


def _providers() -> dict[str, str]:
    """Short name to provider, in the library's order of preference."""
    return {
        name.removesuffix(_SUFFIX).lower(): name
        for name in _library().get_available_providers()
        if name not in _ELSEWHERE
    }


class OnnxModel:
    """An ONNX file in a session. Built by `load`."""

    def __init__(self, session: Any, accelerator: str = "cpu", arena: ArenaLog | None = None) -> None:
        self._session = session
        self._arena = arena
        self._accelerator = accelerator
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
        """What the CPU's arena took from the system; None outside of a measuring process."""
        return None if self._arena is None else self._arena.total_bytes()

    @property
    def placements(self) -> tuple[Placement, ...]:
        """The operators each provider took, as the file has them: before its own fusions."""
        return placements_of(
            (str(part.ep_name), str(node.op_type))
            for part in self._session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The operators that fell back to the CPU, if another provider was asked for."""
        note = None if self._accelerator == "cpu" else fallback_note(self.placements, self._accelerator)
        return () if note is None else (note,)

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


def session_settings(threads: int) -> Any:
    """The `SessionOptions` that every session of ours has.

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    library = _library()
    settings = library.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    settings.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.log_severity_level = _FATAL_ONLY
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return settings


def load(path: Path, options: LoadOptions) -> OnnxModel:
    """Open a session on the accelerator's provider, with the CPU's behind it.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        NoAccelerator: this build has no such provider.
        RuntimeFailure: the file is no ONNX model, an operator has no implementation, or the accelerator
            took nothing of the file.
        MemoryError: no room to load it.
    """
    library = _library()
    if options.accelerator not in _providers():
        raise NoAccelerator
    # Other providers log more than their arenas' growth, and some of it while a model runs.
    arena = ArenaLog() if options.accelerator == "cpu" else None
    telling = arena is not None and arena.readable
    library.set_default_logger_severity(_INFO if telling else _FATAL_ONLY)
    settings = session_settings(options.threads)
    provider = _providers()[options.accelerator]
    providers = [provider] if provider == _CPU else [provider, _CPU]
    try:
        session = library.InferenceSession(str(path), settings, providers=providers)
    except MemoryError:
        raise
    except Exception as error:  # the binding's exceptions share no base but Exception
        raise _failure(error) from error
    model = OnnxModel(session, options.accelerator, arena)
    if provider != _CPU:
        _check_used(model, session, provider)
    return model


def _check_used(model: OnnxModel, session: Any, provider: str) -> None:
    """A session goes to the CPU without a word where a provider cannot start or takes nothing."""
    if provider not in session.get_providers():
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"{provider} could not be started on this machine: see that its driver and libraries are "
            f"installed, or use --accelerator cpu",
        )
    if all(place.where == _CPU for place in model.placements):
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"{provider} took no operator of the file: all of it would run on the CPU",
        )


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
    if is_want_of_memory(error):
        return RuntimeFailure(FailureKind.OUT_OF_MEMORY, message)
    if type(error).__name__ == "NotImplemented" or "No Op registered" in message:
        return RuntimeFailure(FailureKind.UNSUPPORTED, message)
    if "not a registered function/op" in message or "under development" in message:
        return RuntimeFailure(FailureKind.UNSUPPORTED, message)
    return RuntimeFailure(FailureKind.NOT_A_MODEL, message)
