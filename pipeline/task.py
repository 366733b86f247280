"""What is asked for: a model, its data, where it shall run, and what it may cost."""

from __future__ import annotations

import hashlib

from pydantic import Field

from device_bench.protocol import Record
from pipeline.target import Target


class Budget(Record):
    """The constraints of a task; absent means free. `max_drop` is in points of the task's metric."""

    max_drop: float = Field(default=1.0, ge=0.0)
    max_latency_ms: float | None = Field(default=None, gt=0)
    min_speedup: float | None = Field(default=None, gt=0)
    max_peak_memory_bytes: int | None = Field(default=None, gt=0)
    max_artifact_bytes: int | None = Field(default=None, gt=0)


class ModelSpec(Record):
    """How to build the original model again: zoo name, "module:callable", or a path (ONNX, Keras)."""

    source: str
    weights: str | None = None
    input_shape: tuple[int, ...]
    outputs: int


class Task(Record):
    """Model + data + targets + budget."""

    model: ModelSpec
    data: str
    data_root: str | None = None
    targets: tuple[Target, ...]
    budget: Budget = Budget()

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that are the same for equal tasks, so that experience can be found again."""
        return hashlib.sha256(self.model_dump_json(exclude={"data_root"}).encode()).hexdigest()[:16]
