"""What is to be recorded: one model on its data, and the targets it is timed on."""

from __future__ import annotations

from pydantic import Field

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from pipeline.target import Target, find_target

# A network that has seen this many samples knows enough to be worth compressing.
TRAINING_SAMPLES = 48_000


class TableOrder(Record):
    """One table: `plans` whole plans of `model` on `data`, timed in every setting.

    `settings`: targets with their threads, such as "local-litert@2". `weights`: a safetensors file; without
    it a zoo model is trained on `training_samples` samples.
    """

    model: str
    data: str
    weights: str | None = None
    settings: tuple[str, ...] = Field(min_length=1)
    plans: int = Field(default=200, ge=20)
    training_samples: int = Field(default=TRAINING_SAMPLES, ge=1)
    seed: int = 0

    @property
    def name(self) -> str:
        """Model and data: "resnet20/digits"."""
        return f"{self.model}/{self.data}"

    @property
    def file_name(self) -> str:
        """Of its table in a folder of tables."""
        return "".join(c if c.isalnum() or c in "-_" else "-" for c in self.name) + ".safetensors"


def target_of(setting: str) -> Target:
    """The target that a setting such as "local-litert@2" names, with its threads.

    Raises:
        BadInputError: it is no such name, or there is no such target.
    """
    name, _, threads = setting.partition("@")
    if not threads.isdecimal() or int(threads) < 1:
        raise BadInputError(f"a setting is TARGET@THREADS, such as local-litert@2; got {setting!r}")
    return find_target(name).model_copy(update={"threads": int(threads)})
