"""Where a compressed model will run."""

from __future__ import annotations

from device_bench.errors import unknown_name
from device_bench.protocol import Record, RuntimeName


class Target(Record):
    """A device, a runtime on it and how it is used. `where` is "local" or an agent's URL."""

    name: str
    where: str = "local"
    runtime: RuntimeName
    accelerator: str = "cpu"
    threads: int = 1
    precisions: tuple[str, ...] = ("float32", "int8")
    # Widths that the runtime's kernels work on in whole: multiples of it lose nothing to padding.
    width_step: int = 8

    @property
    def artifact_format(self) -> str:
        """ "onnx" or "tflite": what this target's runtime reads."""
        return "tflite" if self.runtime is RuntimeName.LITERT else "onnx"


LOCAL_TARGETS: dict[str, Target] = {
    "local-onnxruntime": Target(name="local-onnxruntime", runtime=RuntimeName.ONNXRUNTIME),
    "local-litert": Target(name="local-litert", runtime=RuntimeName.LITERT),
}


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        BadInputError: no such target; names the nearest known ones.
    """
    if name not in LOCAL_TARGETS:
        raise unknown_name("target", name, LOCAL_TARGETS)
    return LOCAL_TARGETS[name]
