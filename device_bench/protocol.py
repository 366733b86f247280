"""The types that travel between a bench and whoever asks it to measure.

All are frozen pydantic models that refuse unknown keys and carry a `schema_version`; JSON is their only
stored form. Times are nanoseconds where raw and milliseconds where derived; memory is bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of everything stored or sent: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_version: Literal[1] = 1


class RuntimeName(StrEnum):
    """The runtimes a bench knows; `device_bench.runtimes` maps each to its implementation."""

    ONNXRUNTIME = "onnxruntime"
    LITERT = "litert"
    TORCH = "torch"


class TimingPolicy(Record):
    """How long to warm up and to sample. The defaults are those of the design's "Measuring"."""

    warmup_runs: int = Field(default=1, ge=1)
    warmup_seconds: float = Field(default=0.5, ge=0)
    min_samples: int = Field(default=64, ge=1)
    min_seconds: float = Field(default=1.0, ge=0)
    max_seconds: float = Field(default=60.0, gt=0)


class Limits(Record):
    """What the measuring child process may use at most.

    `network`: False takes the network away where the system permits it; where it does not, the conditions
    of the measurement say so.
    """

    wall_seconds: float = Field(default=180.0, gt=0)
    cpu_seconds: int = Field(default=600, gt=0)
    address_space_bytes: int | None = Field(default=None, gt=0)
    file_bytes: int = Field(default=1 << 30, gt=0)
    processes: int | None = Field(default=None, gt=0)
    network: bool = False


class RunSettings(Record):
    """How a file is run, wherever it lies.

    `accelerator`: one of the names that the runtime's module lists on that machine; "cpu" is always there.
    `cores`: the cores that the measuring process is bound to; empty leaves it where it is.
    """

    runtime: RuntimeName
    accelerator: str = Field(default="cpu", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    threads: int = Field(default=1, ge=1, le=1024)
    cores: tuple[int, ...] = ()
    timing: TimingPolicy = TimingPolicy()
    limits: Limits = Limits()
    seed: int = Field(default=0, ge=0, lt=2**63)


class BenchRequest(RunSettings):
    """One file of this machine to run."""

    path: str


class Rounds(Record):
    """How two files are compared: that many interleaved rounds of that many seconds for each file."""

    count: int = Field(default=12, ge=1, le=1000)
    seconds: float = Field(default=0.25, gt=0, le=60)


class Latency(Record):
    """What is derived from the raw samples, in milliseconds. `p50_low/high`: 95 % bootstrap interval."""

    samples: int
    min_ms: float
    mean_ms: float
    std_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p50_low_ms: float
    p50_high_ms: float


class Memory(Record):
    """Three figures that are never mixed.

    `peak_bytes`: peak resident bytes of the process with the model less the same process with none;
    `arena_bytes`: what the runtime itself says it planned, absent where it does not tell;
    `file_bytes`: the artifact's size on disk.
    `device_bytes`: memory of an accelerator that this process held (NVML), absent without one.
    """

    peak_bytes: int
    arena_bytes: int | None = None
    file_bytes: int
    device_bytes: int | None = None


class Energy(Record):
    """Energy of one inference in millijoule, what idling costs meanwhile included. `source`: who told it."""

    source: str
    mean_mj: float


class TensorInfo(Record):
    """One input or output as the runtime declares it; a size left open is −1.

    `scale`/`zero_point`: per-tensor quantization.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None


class DeviceInfo(Record):
    """The machine: what it is, not how it fares at the moment."""

    hostname: str
    machine: str
    system: str
    cpu_model: str
    cpu_count: int
    memory_bytes: int
    isa: tuple[str, ...] = ()
    emulated: bool = False


class Placement(Record):
    """How many operators of one kind ran where, for example on "XNNPACK" or "CPUExecutionProvider"."""

    where: str
    operator: str
    count: int = Field(ge=0)


class Conditions(Record):
    """How a measurement was made, and how the machine fared around it. Absent readings are None."""

    device: DeviceInfo
    runtime: RuntimeName
    runtime_version: str
    accelerator: str
    threads: int
    affinity: tuple[int, ...] = ()
    governor: str | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    load_1m: float | None = None
    delegated_operators: int | None = None
    undelegated_operators: int | None = None
    placements: tuple[Placement, ...] = ()
    network_isolated: bool | None = None
    clock_resolution_ns: float | None = None
    started_at: str = ""


class Measurement(Record):
    """One artifact measured in one fresh process: every raw sample, and what follows from them.

    `instructions`: median count of instructions of one inference, where an emulated device tells it. It is a
    proxy without caches and pipeline, never a latency.
    """

    # Thousands of numbers would bury everything else in a traceback.
    samples_ns: tuple[int, ...] = Field(repr=False)
    latency: Latency
    memory: Memory
    conditions: Conditions
    energy: Energy | None = None
    instructions: int | None = None
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    settled: bool = True
    warnings: tuple[str, ...] = ()


class FailureKind(StrEnum):
    """Why there is no measurement."""

    NOT_A_MODEL = "not_a_model"
    UNSUPPORTED = "unsupported"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    RUNTIME_MISSING = "runtime_missing"
    RUNTIME_ERROR = "runtime_error"
    BAD_INPUT = "bad_input"
    AGENT_RESTARTED = "agent_restarted"
    CANCELLED = "cancelled"
    UNREACHABLE = "unreachable"


class Failure(Record):
    """A measurement that did not happen, with the runtime's own words in `message`."""

    kind: FailureKind
    message: str
    exit_code: int | None = None


class Comparison(Record):
    """Two artifacts in interleaved rounds (A B A B …).

    `speedup` is the median over rounds of p50(A)/p50(B) within a round: above 1 means B is faster. Where
    another process took turns with the runs, it is that of their mean times, and a warning says so.
    `low`/`high`: 95 % bootstrap interval over rounds. `first`/`second`: all rounds' samples together.
    """

    speedup: float
    low: float
    high: float
    rounds: int
    first: Latency
    second: Latency
    conditions: Conditions
    warnings: tuple[str, ...] = ()

    @property
    def width(self) -> float:
        """Of the interval, as a share of the ratio."""
        return (self.high - self.low) / self.speedup


class OperatorTime(Record):
    """One operator of a file: the mean time of one run. `name`: what the file or the runtime calls it.

    `inputs`/`outputs`: the tensors that it reads (weights too) and makes, by which an exporter finds the
    layer it came from.
    """

    name: str
    operator: str
    ms: float = Field(ge=0)
    where: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


class Profile(Record):
    """Where a file's latency goes, operator by operator, in the order of the run.

    `whole_ms`: p50 of the whole file without a profiler. `other_ms`: what the operators do not account for;
    below 0 where their sum exceeds the whole. `method`: "profiler" (the runtime's own) or "single operators"
    (each one cut out of the file and measured alone).
    """

    operators: tuple[OperatorTime, ...]
    whole_ms: float
    other_ms: float
    method: Literal["profiler", "single operators"]
    conditions: Conditions
    warnings: tuple[str, ...] = ()
