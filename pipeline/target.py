"""Where a compressed model will run."""

from __future__ import annotations

from device_bench.errors import BadInputError, unknown_name
from device_bench.protocol import Record, RuntimeName
from device_bench.runtimes import SUFFIXES
from pipeline.target_book import LOCAL, Device, TargetBook, default_book

# What `where` begins with for a class of boards.
CLASS = "class:"
_FORMATS = {runtime: suffix.removeprefix(".") for suffix, runtime in SUFFIXES.items()}
_PRECISIONS = {RuntimeName.TORCH: ("float32",)}


class Target(Record):
    """A device, a runtime on it and how it is used.

    `where` is "local", an agent's URL, or "class:NAME" for whichever board of that class is free.
    """

    name: str
    where: str = LOCAL
    runtime: RuntimeName
    accelerator: str = "cpu"
    threads: int = 1
    precisions: tuple[str, ...] = ("float32", "int8")
    # Widths that the runtime's kernels work on in whole: multiples of it lose nothing to padding.
    width_step: int = 8

    @property
    def artifact_format(self) -> str:
        """ "onnx", "tflite" or "pt2": what this target's runtime reads."""
        return _FORMATS[self.runtime]

    @property
    def compressible(self) -> bool:
        """True if edgeloop can compress a model for it: only then does it take INT8 files."""
        return "int8" in self.precisions


LOCAL_TARGETS: dict[str, Target] = {
    "local-onnxruntime": Target(name="local-onnxruntime", runtime=RuntimeName.ONNXRUNTIME),
    "local-litert": Target(name="local-litert", runtime=RuntimeName.LITERT),
}


def known_targets(book: TargetBook | None = None) -> dict[str, Target]:
    """Every target by name: this machine's, those of each device that was added, those of each class.

    Raises:
        BadInputError: the book of devices is damaged.
    """
    found = LOCAL_TARGETS | _targets_on(LOCAL, LOCAL, tuple(RuntimeName))
    devices = (book or default_book()).devices().values()
    for device in devices:
        found |= _targets_on(device.name, device.url, device.installed)
    for name in sorted({device.device_class for device in devices if device.device_class}):
        siblings = [device for device in devices if device.device_class == name]
        runtimes = sorted({runtime for device in siblings for runtime in device.installed})
        found |= _targets_on(name, f"{CLASS}{name}", tuple(runtimes))
    return found


def find_target(name: str, book: TargetBook | None = None) -> Target:
    """The target of that name.

    Raises:
        BadInputError: no such target; names the nearest known ones.
    """
    if name in LOCAL_TARGETS:
        return LOCAL_TARGETS[name]
    known = known_targets(book)
    if name in known:
        return known[name]
    for device in (book or default_book()).devices().values():
        for info in device.runtimes:
            if name == _target_name(device.name, info.runtime):
                raise BadInputError(
                    f"{device.name} has no {info.runtime.value} ({info.note or 'not installed'}); after "
                    f"installing it, run `edgeloop targets check {device.name}`"
                )
    raise unknown_name("target", name, known)


def find_targets(name: str, book: TargetBook | None = None) -> tuple[Target, ...]:
    """The target of that name, or every target of the device of that name.

    Raises:
        BadInputError: no such target or device; names the nearest known ones.
    """
    known = known_targets(book)
    names = sorted({device_of(target) for target in known.values()} | {LOCAL})
    names += [name for name in (book or default_book()).devices() if name not in names]
    if name in names:
        targets = tuple(target for target in known.values() if device_of(target) == name)
        if not targets:
            raise BadInputError(
                f"{name} has no runtime; install one there, then run `edgeloop targets check {name}`"
            )
        return targets
    if name not in known and not any(name.startswith(f"{device}-") for device in names):
        raise unknown_name("target", name, [*known, *names])
    return (find_target(name, book),)


def target_beside(target: Target, runtime: RuntimeName) -> Target:
    """What runs files for `runtime` on the same device, used as `target` is.

    Raises:
        BadInputError: the device has no such runtime.
    """
    if target.runtime is runtime:
        return target
    found = find_target(_target_name(device_of(target), runtime))
    return found.model_copy(update={"threads": target.threads, "accelerator": target.accelerator})


def device_of(target: Target) -> str:
    """The name of the device that a target is on."""
    return target.name.removesuffix(f"-{target.runtime.value}")


def device_behind(target: Target, book: TargetBook | None = None) -> Device | None:
    """The board that a target is on; None for this machine, and for a class of boards."""
    if target.where.startswith(CLASS):
        return None
    return None if target.where == LOCAL else (book or default_book()).device(device_of(target))


def _targets_on(device: str, where: str, runtimes: tuple[RuntimeName, ...]) -> dict[str, Target]:
    found = {}
    for runtime in runtimes:
        name = _target_name(device, runtime)
        precisions = _PRECISIONS.get(runtime, Target.model_fields["precisions"].default)
        found[name] = Target(name=name, where=where, runtime=runtime, precisions=precisions)
    return found


def _target_name(device: str, runtime: RuntimeName) -> str:
    return f"{device}-{runtime.value}"
