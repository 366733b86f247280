"""A table of recorded outcomes on disk: one safetensors file for a model and its data.

Tensors: `options` int16 [rows, positions] as `PlanCodec` encodes plans; `accuracy` float32 [rows], the metric
before recovery; `latency/SETTING` float32 [rows], p50 in ms, NaN where a row was not measured there. What the
rows are rows of stands in the file's metadata, as JSON.

Where answers were kept, also `outputs/truth` [samples] or [samples, heads], `outputs/original` float16
[samples, k] and `outputs/changed` float16 [changes, samples, k], of the changes to probe in their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from device_bench.storage import write_whole
from pipeline.data.base import Metric
from pipeline.graph import ModelGraph
from pipeline.policy.base import Change, Effect
from pipeline.policy.outputs import ProbedOutputs
from pipeline.search import changes_to_probe, plan_of
from pipeline.space import PlanSpace
from pipeline.tables.codec import Options, PlanCodec
from pipeline.target import Target
from pipeline.task import ModelSpec

METADATA_KEY = "edgeloop_table"


class SettingRecord(Record):
    """One target as it was used: where latencies of a table come from.

    `shares`: unit → its share of plain INT8's latency, empty where the target could not tell.
    """

    target: Target
    base_latency_ms: float = Field(gt=0)
    shares: dict[str, float] = Field(default_factory=dict)


class TableHeader(Record):
    """What a table's rows are rows of.

    `family`: the model's family in the zoo, or its name. `samples`: how many of the search split an accuracy
    is over. `device`: what it was recorded on, in words. `heads`: classes of each of several tasks.
    """

    model: ModelSpec
    family: str
    data: str
    metric: Metric
    float_accuracy: float
    chance: float
    samples: int
    graph: ModelGraph
    width_step: int
    settings: dict[str, SettingRecord]
    device: str
    seed: int = 0
    heads: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Model and data: "resnet20/digits"."""
        return f"{self.model.source}/{self.data}"


@dataclass(frozen=True, eq=False)
class TaskTable:
    """A header and its rows; see the module's text for dtypes and shapes."""

    header: TableHeader
    options: Options
    accuracy: NDArray[np.float32]
    latency_ms: Mapping[str, NDArray[np.float32]]
    outputs: ProbedOutputs | None = None

    @cached_property
    def codec(self) -> PlanCodec:
        """Translates between rows and plans."""
        return PlanCodec(PlanSpace.of(self.header.graph, self.header.width_step))

    def save(self, path: Path) -> None:
        """Write the table, whole or not at all.

        Raises:
            RunError: the file cannot be written.
        """
        from safetensors.numpy import save

        tensors = {"options": self.options.astype(np.int16), "accuracy": self.accuracy.astype(np.float32)}
        tensors |= {f"latency/{name}": column.astype(np.float32) for name, column in self.latency_ms.items()}
        if self.outputs is not None:
            tensors |= _packed(self.outputs, changes_to_probe(self.header.graph, self.codec.space))
        write_whole(path, save(tensors, {METADATA_KEY: self.header.model_dump_json()}))

    @classmethod
    def load(cls, path: Path) -> TaskTable:
        """Read a table.

        Raises:
            BadInputError: there is none, it is damaged, or it is of another schema version.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            content = path.read_bytes()
            tensors = load(content)
            length = int.from_bytes(content[:8], "little")
            metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
            header = TableHeader.model_validate_json(metadata[METADATA_KEY])
            latency = {k.removeprefix("latency/"): v for k, v in tensors.items() if k.startswith("latency/")}
            table = cls(header, tensors["options"], tensors["accuracy"], latency)
            if "outputs/changed" in tensors:
                table = replace(table, outputs=table.unpacked(tensors))
        except OSError as error:
            raise BadInputError(
                f"cannot read the table {path}: {error.strerror}; record it with `edgeloop meta-train`"
            ) from error
        except (SafetensorError, KeyError, ValueError, ValidationError) as error:
            raise BadInputError(
                f"{path} is no table of recorded trials ({error}); delete it and record it anew"
            ) from error
        return table.checked(path)

    def unpacked(self, tensors: Mapping[str, NDArray[np.generic]]) -> ProbedOutputs:
        """The answers in a file's tensors.

        Raises:
            ValueError: they are of another number of changes than this table's.
        """
        changes = changes_to_probe(self.header.graph, self.codec.space)
        answers = tensors["outputs/changed"].astype(np.float32)
        if len(answers) != len(changes):
            raise ValueError(f"answers of {len(answers)} changes, where {len(changes)} can be probed")
        known = {
            change: given for change, given in zip(changes, answers, strict=True) if np.isfinite(given).all()
        }
        original = tensors["outputs/original"].astype(np.float32)
        return ProbedOutputs(self.header.metric, tensors["outputs/truth"], original, known, self.header.heads)

    def checked(self, path: Path) -> TaskTable:
        """This table, if its columns fit together.

        Raises:
            BadInputError: they do not; says which.
        """
        rows, positions = self.options.shape
        wrong = [name for name, column in self.latency_ms.items() if column.shape != (rows,)]
        if positions != len(self.codec.positions) or self.accuracy.shape != (rows,) or wrong:
            raise BadInputError(
                f"{path} does not hold together: options {self.options.shape}, accuracy "
                f"{self.accuracy.shape}, {len(self.codec.positions)} positions, columns of another length: "
                f"{wrong}; delete it and record it anew"
            )
        if set(self.latency_ms) != set(self.header.settings):
            raise BadInputError(
                f"{path} has latencies of {sorted(self.latency_ms)} and settings "
                f"{sorted(self.header.settings)}; delete it and record it anew"
            )
        return self


def _packed(outputs: ProbedOutputs, changes: Sequence[Change]) -> dict[str, NDArray[np.generic]]:
    """Answers as tensors; NaN for changes that were not probed."""
    missing = np.full(outputs.original.shape, np.nan, np.float32)
    return {
        "outputs/truth": np.ascontiguousarray(outputs.truth),
        "outputs/original": outputs.original.astype(np.float16),
        "outputs/changed": np.stack([outputs.changed.get(one, missing) for one in changes]).astype(
            np.float16
        ),
    }


def effects_of(table: TaskTable, settings: Sequence[str]) -> dict[Change, Effect]:
    """What single changes do, from the rows of their plans; latencies by setting."""
    rows = {options.tobytes(): row for row, options in enumerate(table.options)}
    found = {}
    for change in changes_to_probe(table.header.graph, table.codec.space):
        row = rows.get(table.codec.encode(plan_of(table.codec.space, change)).tobytes())
        if row is None or not np.isfinite(table.accuracy[row]):
            continue
        latency = {name: float(table.latency_ms[name][row]) for name in settings}
        found[change] = Effect(
            accuracy=float(table.accuracy[row]),
            latency_ms={name: ms for name, ms in latency.items() if np.isfinite(ms)},
        )
    return found
