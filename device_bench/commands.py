"""What the bench tells its child process, and what the child answers: one JSON line each.

A child is given one `Job`, then any number of commands; it answers each with the type named beside the
command, or with a `Failure`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from device_bench.protocol import BenchRequest, Conditions, Energy, Limits, Record, TensorInfo


class Job(Record):
    """What a child is for: a runtime's module (a value of `runtimes.MODULES`), under limits."""

    module: str
    limits: Limits = Limits()


class Baseline(Record):
    """Import the runtime and load nothing. Answer: `Peak`."""

    command: Literal["baseline"] = "baseline"


class Describe(Record):
    """Say which library this is and what it can use here. Answer: `Library`."""

    command: Literal["describe"] = "describe"


class Measure(Record):
    """Load, warm up and sample. Answer: `Readings`."""

    command: Literal["measure"] = "measure"
    request: BenchRequest


class Open(Record):
    """Load and warm up, and keep the model for rounds. Answer: `Opened`."""

    command: Literal["open"] = "open"
    request: BenchRequest


class Round(Record):
    """Sample the opened model for a while. Answer: `RoundSamples`."""

    command: Literal["round"] = "round"
    seconds: float = Field(gt=0)


class Predict(Record):
    """Run the file over the samples of an .npy file and write its outputs to another. Answer: `Written`."""

    command: Literal["predict"] = "predict"
    request: BenchRequest
    inputs_path: str
    outputs_path: str


class TakeProfile(Record):
    """Say where the file's latency goes. Answer: `Profile`."""

    command: Literal["profile"] = "profile"
    request: BenchRequest


Command = Baseline | Describe | Measure | Open | Round | Predict | TakeProfile

COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="command")])


class Peak(Record):
    """Peak resident bytes of the child so far."""

    peak_bytes: int


class Library(Record):
    """A runtime as it is installed. `accelerators`: "cpu" first."""

    version: str
    accelerators: tuple[str, ...]


class Readings(Record):
    """What only the measuring process can know. `steady`: the warm-up became stable."""

    samples_ns: tuple[int, ...]
    steady: bool
    peak_bytes: int
    arena_bytes: int | None
    device_bytes: int | None = None
    energy: Energy | None = None
    instructions: int | None = None
    conditions: Conditions
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    notes: tuple[str, ...] = ()


class Opened(Record):
    """A model is loaded, warm and waits for rounds."""

    steady: bool
    conditions: Conditions
    notes: tuple[str, ...] = ()


class RoundSamples(Record):
    """Durations of one round, in ns."""

    samples_ns: tuple[int, ...]


class Written(Record):
    """How many samples were run."""

    samples: int
