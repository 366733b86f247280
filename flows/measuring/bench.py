"""`edgeloop bench`: measures any artifact on any target, and compares it with another."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from device_bench.errors import BadInputError
from device_bench.protocol import BenchRequest, Comparison, Failure, Measurement, Record, Rounds
from device_bench.runtimes import SUFFIXES
from device_bench.screen import wide_console
from flows.measuring.bench_tables import show_comparisons, show_outcomes
from flows.measuring.profile import profile_artifact
from flows.measuring.waiting import Waiting
from pipeline.target import Target, device_of, find_targets, known_targets, target_beside
from pipeline.target_bench import ask_again, bench_for
from pipeline.target_book import LOCAL

DONE, FAILED = 0, 3

# How two files are compared.
ROUNDS = Rounds()

Outcomes = dict[str, Measurement | Failure]


@dataclass(frozen=True)
class BenchOrder:
    """What to measure and where.

    `targets`: names of targets or devices; none are all local ones that read the artifact.
    `accelerator` and `threads` stand in for what the targets say. `other`: what to compare with.
    `profile`: show where the latency goes instead of measuring it.
    """

    artifact: Path
    targets: tuple[str, ...] = ()
    threads: int | None = None
    accelerator: str | None = None
    other: Path | None = None
    profile: bool = False

    @property
    def files(self) -> list[Path]:
        """The artifact, and what it is compared with."""
        return [self.artifact] if self.other is None else [self.artifact, self.other]


def bench_artifact(order: BenchOrder, *, as_json: bool) -> int:
    """Measure the artifact on each target; with another one, measure that too, and compare the two.

    Returns:
        0 if every measurement was made, 3 if one failed.

    Raises:
        BadInputError: no such file, an unknown format or target, a target that does not read the format, or
            no thread.
    """
    if order.profile and order.other is not None:
        raise BadInputError("--profile shows one file and --compare measures two: leave one of them out")
    targets = _targets(order)
    if order.profile:
        return profile_artifact(order.artifact, targets, as_json=as_json)
    users = [targets] if order.other is None else [targets, _targets_beside(targets, order.other)]
    found = _Found([{} for _ in users], {})
    with Waiting(Console(stderr=True)) as waiting:
        for place in zip(*users, strict=True):
            _bench_on(place, order, found, waiting)
    if as_json:
        sys.stdout.write(found.as_json() + "\n")
    console = wide_console(stderr=as_json)
    for file, outcomes in zip(order.files, found.measured, strict=True):
        show_outcomes(console, file, outcomes)
    if order.other is not None:
        show_comparisons(console, order.artifact, order.other, found.compared)
    return FAILED if found.has_failure else DONE


@dataclass(frozen=True)
class _Found:
    """Outcomes by the name of the target: of each file by its own, of the comparison by the first file's."""

    measured: list[Outcomes]
    compared: dict[str, Comparison | Failure]

    @property
    def has_failure(self) -> bool:
        """True if anything that was to be measured was not."""
        return any(isinstance(outcome, Failure) for table in self._tables() for outcome in table.values())

    def as_json(self) -> str:
        """The one file's outcomes by target; with two files, three such tables."""
        tables = [_table_as_json(table) for table in self._tables()]
        if len(self.measured) == 1:
            return tables[0]
        return '{{"first": {},\n"second": {},\n"comparison": {}}}'.format(*tables)

    def _tables(self) -> list[Mapping[str, Measurement | Comparison | Failure]]:
        return [*self.measured, self.compared]


def _table_as_json(table: Mapping[str, Record]) -> str:
    lines = [f'"{name}": {outcome.model_dump_json(indent=2)}' for name, outcome in table.items()]
    return "{" + ",\n".join(lines) + "}"


def _bench_on(place: tuple[Target, ...], order: BenchOrder, found: _Found, waiting: Waiting) -> None:
    """Measure every file on one device, each by its target there, and compare two."""
    bench = bench_for(place[0], waiting.tell)
    requests = [_request(file, user) for file, user in zip(order.files, place, strict=True)]
    failure: Failure | None = None
    for user, request, outcomes in zip(place, requests, found.measured, strict=True):
        waiting.begin(f"{Path(request.path).name} on {user.name}")
        outcome = outcomes[user.name] = ask_again(partial(bench.measure, request))
        failure = outcome if isinstance(outcome, Failure) else failure
    if order.other is not None:
        waiting.begin(f"{order.artifact.name} against {order.other.name} on {device_of(place[0])}")
        first, second = requests
        compared: Comparison | Failure | None = failure
        if compared is None:
            compared = ask_again(lambda: bench.compare(first, second, ROUNDS))
        found.compared[place[0].name] = compared


def _request(file: Path, target: Target) -> BenchRequest:
    return BenchRequest(
        path=str(file), runtime=target.runtime, accelerator=target.accelerator, threads=target.threads
    )


def _targets(order: BenchOrder) -> list[Target]:
    """Where to measure, each checked to read the artifact, used as the order says."""
    if order.threads is not None and order.threads < 1:
        raise BadInputError(f"threads must be at least 1; got {order.threads}")
    update: dict[str, object] = {}
    if order.threads is not None:
        update["threads"] = order.threads
    if order.accelerator is not None:
        update["accelerator"] = order.accelerator
    return [target.model_copy(update=update) for target in targets_for(order.artifact, order.targets)]


def targets_for(artifact: Path, names: tuple[str, ...] = ()) -> list[Target]:
    """The targets of these names, each checked to read the artifact; without names, this machine's.

    A bare device stands for its runtime that reads the artifact.
    """
    runtime = SUFFIXES[_suffix(artifact)]
    if not names:
        here = [target for target in known_targets().values() if target.where == LOCAL]
        return [target for target in here if target.runtime is runtime]
    found: dict[str, Target] = {}
    for name in names:
        given = find_targets(name)
        fitting = [target for target in given if target.runtime is runtime]
        if not fitting:
            forms = " and ".join(f".{target.artifact_format}" for target in given)
            raise BadInputError(
                f"target {name} runs {forms} files; {artifact} is {_suffix(artifact).removeprefix('.')}: "
                "choose another target or file"
            )
        found |= {target.name: target for target in fitting}
    return list(found.values())


def _targets_beside(targets: list[Target], other: Path) -> list[Target]:
    """What runs the other file on each target's device."""
    runtime = SUFFIXES[_suffix(other)]
    return [target_beside(target, runtime) for target in targets]


def _suffix(artifact: Path) -> str:
    if not artifact.is_file():
        raise BadInputError(f"artifact {artifact} does not exist; give an .onnx or .tflite file")
    suffix = artifact.suffix.lower()
    if suffix not in SUFFIXES:
        raise BadInputError(
            f"artifact {artifact} must end in .onnx or .tflite (or .pt2 for torch); got {artifact.suffix!r}"
        )
    return suffix
