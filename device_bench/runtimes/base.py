"""What a runtime is: a module with three functions, and the loaded model that one of them returns.

A new runtime is one file that has `version`, `accelerators` and `load`, one line in
`device_bench.runtimes.MODULES`, and `tests/conformance/runtime_suite.py` inherited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import FailureKind, Placement, TensorInfo

# The runtimes differ in dtype from tensor to tensor, so the element type is open here.
Array = NDArray[np.generic]


class RuntimeFailure(Exception):
    """A runtime refused a file or broke on it. `kind` says how; the text is the runtime's own."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NoAccelerator(RuntimeFailure):
    """The accelerator asked for is not there; `load_checked` says what is."""

    def __init__(self) -> None:
        super().__init__(FailureKind.UNSUPPORTED, "this accelerator is not there")


class LoadOptions(NamedTuple):
    """How a file is to be run. `accelerator`: one of the names that `Runtime.accelerators` gives."""

    threads: int = 1
    accelerator: str = "cpu"


class OperatorCounts(NamedTuple):
    """How many operators an accelerator or a delegate took, and how many stayed on the plain kernels."""

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
    def placements(self) -> tuple[Placement, ...]:
        """What ran where, operator by operator; empty where the runtime does not tell."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever reads the figures must know, such as operators that fell back to the CPU."""
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


@runtime_checkable
class TimedModel(Protocol):
    """A model that times itself, because what it starts ends later than the call that starts it."""

    def timed_invoke(self) -> int:
        """One inference, from its inputs in the host's memory to its outputs there, in ns."""
        ...


class Runtime(Protocol):
    """A module of this package, seen as an object."""

    def version(self) -> str:
        """The library's version. Imports the library.

        Raises:
            MissingExtraError: the library is not installed.
        """
        ...

    def accelerators(self) -> tuple[str, ...]:
        """The accelerators that can be used on this machine, "cpu" first. Imports the library.

        Raises:
            MissingExtraError: the library is not installed.
        """
        ...

    def load(self, path: Path, options: LoadOptions) -> Model:
        """Load a file.

        Raises:
            MissingExtraError: the library is not installed.
            NoAccelerator: the accelerator is none that `accelerators` gives.
            RuntimeFailure: the file is no model, or asks for something the runtime lacks.
        """
        ...


def load_checked(runtime: Runtime, name: str, path: Path, options: LoadOptions) -> Model:
    """`runtime.load`, which says what there is where the accelerator is not.

    Args:
        name: what to call the runtime in a message.

    Raises:
        MissingExtraError: the library is not installed.
        RuntimeFailure: the accelerator is not there, or loading fails.
    """
    try:
        return runtime.load(path, options)
    except NoAccelerator as error:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"accelerator {options.accelerator!r} is not to be had from {name} {runtime.version()} on this "
            f"machine; there is: {', '.join(runtime.accelerators())}",
        ) from error


# Where operators run that nothing accelerated, in the words of each runtime.
PLAIN_KERNELS = ("CPUExecutionProvider", "plain kernels")


def placements_of(places: Iterable[tuple[str, str]]) -> tuple[Placement, ...]:
    """Count (where, operator) pairs, in alphabetical order."""
    counts = sorted(Counter(places).items())
    return tuple(Placement(where=where, operator=name, count=count) for (where, name), count in counts)


def count_delegated(placements: Sequence[Placement]) -> OperatorCounts | None:
    """Operators off and on the plain kernels; None where nothing is known."""
    if not placements:
        return None
    plain = sum(place.count for place in placements if place.where in PLAIN_KERNELS)
    return OperatorCounts(delegated=sum(place.count for place in placements) - plain, undelegated=plain)


def fallback_note(placements: Sequence[Placement], accelerator: str) -> str | None:
    """A warning that names the operators left on the CPU's plain kernels, or None where there are none."""
    left = [place for place in placements if place.where in PLAIN_KERNELS]
    if not left:
        return None
    total = sum(place.count for place in placements)
    kinds = ", ".join(f"{place.count} {place.operator}" for place in left)
    count = sum(place.count for place in left)
    return f"{count} of {total} operators fell back from {accelerator!r} to the CPU: {kinds}"


def is_want_of_memory(error: BaseException) -> bool:
    """Whether an error of a library means that there was no room, which few say by their type."""
    text = str(error).lower()
    words = ("bad_alloc", "bad allocation", "allocate memory", "can't allocate", "out of memory")
    return isinstance(error, MemoryError) or any(word in text for word in words)


def first_lines(error: BaseException, limit: int = 600) -> str:
    """A library's message, short enough for one paragraph on a screen."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def describe(infos: Sequence[TensorInfo]) -> str:
    """`name dtype[shape]` of each tensor, for messages."""
    return ", ".join(f"{i.name} {i.dtype}{list(i.shape)}" for i in infos)
