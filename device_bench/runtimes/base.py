"""What a runtime is: a module with two functions, and the loaded model that one of them returns.

A new runtime is one file that has `version` and `load`, and one line in `device_bench.runtimes.MODULES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import FailureKind, TensorInfo

# The runtimes differ in dtype from tensor to tensor, so the element type is open here.
Array = NDArray[np.generic]


class RuntimeFailure(Exception):
    """A runtime refused a file or broke on it. `kind` says how; the text is the runtime's own."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class OperatorCounts(NamedTuple):
    """How many operators an accelerating delegate took, and how many stayed on the plain kernels."""

    delegated: int
    undelegated: int


class Model(Protocol):
    """One file, loaded and ready to run."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs in the file's order; a size left open is −1."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs in the file's order; a size left open is −1."""
        ...

    @property
    def arena_bytes(self) -> int | None:
        """Bytes that the runtime says it planned for tensors; None where it does not tell."""
        ...

    @property
    def operators(self) -> OperatorCounts | None:
        """Operator counts by delegation; None where the runtime does not tell."""
        ...

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Give one array per input, of its dtype and shape; open sizes follow the array."""
        ...

    def invoke(self) -> None:
        """Run once on what `set_inputs` gave. This, and nothing else, is what gets timed."""
        ...

    def read_outputs(self) -> list[Array]:
        """Copies of what the last `invoke` computed, one array per output."""
        ...


class Runtime(Protocol):
    """A module of this package, seen as an object."""

    def version(self) -> str:
        """The library's version. Imports the library.

        Raises:
            MissingExtraError: the library is not installed.
        """
        ...

    def load(self, path: Path, threads: int) -> Model:
        """Load a file for `threads` threads.

        Raises:
            MissingExtraError: the library is not installed.
            RuntimeFailure: the file is no model, or asks for something the runtime lacks.
        """
        ...


def first_lines(error: BaseException, limit: int = 600) -> str:
    """A library's message, short enough for one paragraph on a screen."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def describe(infos: Sequence[TensorInfo]) -> str:
    """`name dtype[shape]` of each tensor, for messages."""
    return ", ".join(f"{i.name} {i.dtype}{list(i.shape)}" for i in infos)
