"""Exported programs of torch (.pt2), on the CPU and on CUDA.

On CUDA an inference is timed by the device's own events, from the inputs in the host's memory to the outputs
there, as ONNX Runtime's and LiteRT's are; how much of it is copying is told in the notes. Files are read by
`torch_program`, which loads no pickle.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.errors import MissingExtraError
from device_bench.protocol import FailureKind, Placement, TensorInfo
from device_bench.runtimes.base import (
    Array,
    LoadOptions,
    Model,
    NoAccelerator,
    RuntimeFailure,
    first_lines,
    placements_of,
)
from device_bench.runtimes.torch_program import Program, read_program

_NS_PER_MS = 1e6


def _library() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:  # one that is there and broken says so itself
        raise MissingExtraError("torch", "pipeline") from error
    return torch


def version() -> str:
    """torch's version, for example "2.13.0+cpu"."""
    return str(_library().__version__)


def accelerators() -> tuple[str, ...]:
    """The CPU, and "cuda" where torch was built for it and finds a device."""
    return ("cpu", "cuda") if _library().cuda.is_available() else ("cpu",)


class TorchModel:
    """An exported program on the CPU. Built by `load`."""

    where = "plain kernels"

    def __init__(self, torch: Any, program: Program) -> None:
        self._torch = torch
        self._program = program
        self._inputs: list[Any] = []
        self._results: list[Any] = []

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs in the order of the exported module's; a size left open is −1."""
        return self._program.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs in the order in which the module returns them; a size left open is −1."""
        return self._program.outputs

    @property
    def arena_bytes(self) -> int | None:
        """None: torch plans no arena."""
        return None

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Every operator of the graph, all on the same device."""
        return placements_of((self.where, step.operator) for step in self._program.steps)

    @property
    def notes(self) -> tuple[str, ...]:
        """None on the CPU."""
        return ()

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Give one array per input; the program reads copies of them."""
        self._inputs = [self._torch.from_numpy(np.array(array)) for array in arrays]

    def invoke(self) -> None:
        """One inference."""
        with self._torch.inference_mode():
            self._results = self._program.run(self._inputs)

    def read_outputs(self) -> list[Array]:
        """The last outputs as arrays of their own."""
        return [result.numpy().copy() for result in self._results]


class CudaModel(TorchModel):
    """An exported program on CUDA."""

    where = "CUDA"

    def __init__(self, torch: Any, program: Program) -> None:
        super().__init__(torch, program)
        # Before the copy in, after it, after the last kernel, after the copy out.
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        self._parts_ms: list[tuple[float, float, float]] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """The medians of the parts of an inference, if any was timed."""
        if not self._parts_ms:
            return ()
        copy_in, kernels, copy_out = (statistics.median(part) for part in zip(*self._parts_ms, strict=True))
        return (
            f"of an inference, copying the inputs to the device took {copy_in:.4g} ms, the kernels "
            f"{kernels:.4g} ms, and copying the outputs back {copy_out:.4g} ms (medians)",
        )

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Give one array per input, kept in page-locked memory, from which copies do not wait."""
        self._inputs = [self._torch.from_numpy(np.array(array)).pin_memory() for array in arrays]

    def invoke(self) -> None:
        """One inference; returns when its outputs are in the host's memory."""
        self.timed_invoke()

    def timed_invoke(self) -> int:
        """One inference as the device's events time it, in ns; their resolution is about 500 ns."""
        begin, copied, computed, end = self._events
        with self._torch.inference_mode():
            begin.record()
            tensors = [tensor.to("cuda", non_blocking=True) for tensor in self._inputs]
            copied.record()
            results = self._program.run(tensors)
            computed.record()
            self._results = [result.to("cpu", non_blocking=True) for result in results]
            end.record()
        end.synchronize()
        self._parts_ms.append(
            (begin.elapsed_time(copied), copied.elapsed_time(computed), computed.elapsed_time(end))
        )
        whole_ms: float = begin.elapsed_time(end)
        return round(whole_ms * _NS_PER_MS)


def load(path: Path, options: LoadOptions) -> Model:
    """Read an exported program.

    Raises:
        MissingExtraError: torch is not installed.
        NoAccelerator: it is neither the CPU nor a CUDA device that is there.
        RuntimeFailure: the file is no exported program, or one that is not run here.
        MemoryError: no room to load it.
    """
    torch = _library()
    if options.accelerator not in accelerators():
        raise NoAccelerator
    torch.set_num_threads(options.threads)
    try:
        program = read_program(path, torch, options.accelerator)
        return TorchModel(torch, program) if options.accelerator == "cpu" else CudaModel(torch, program)
    except torch.OutOfMemoryError as error:
        raise RuntimeFailure(FailureKind.OUT_OF_MEMORY, first_lines(error)) from error
