"""`edgeloop bench`: measures any artifact on any target."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.errors import BadInputError
from device_bench.local import measure
from device_bench.protocol import BenchRequest, Failure, Measurement
from pipeline.target import LOCAL_TARGETS, Target, find_target

FORMATS = {".onnx": "onnx", ".tflite": "tflite"}


def bench_artifact(artifact: Path, names: list[str], threads: int | None, *, as_json: bool) -> int:
    """Measure `artifact` on each named target, or on every local one that reads its format.

    Returns:
        0 if every measurement was made, 3 if one failed.

    Raises:
        BadInputError: no such file, an unknown format or target, a target that does not read the format, or
            no thread.
    """
    if threads is not None and threads < 1:
        raise BadInputError(f"threads must be at least 1; got {threads}")
    outcomes = {}
    for target in targets_for(artifact, names):
        request = BenchRequest(
            path=str(artifact),
            runtime=target.runtime,
            accelerator=target.accelerator,
            threads=target.threads if threads is None else threads,
        )
        outcomes[target.name] = measure(request)
    if as_json:
        lines = [f'"{name}": {outcome.model_dump_json(indent=2)}' for name, outcome in outcomes.items()]
        sys.stdout.write("{" + ",\n".join(lines) + "}\n")
    show_outcomes(Console(stderr=as_json), artifact, outcomes)
    return 3 if any(isinstance(outcome, Failure) for outcome in outcomes.values()) else 0


def targets_for(artifact: Path, names: list[str]) -> list[Target]:
    """The targets of these names, each checked to read the artifact's format."""
    if not artifact.is_file():
        raise BadInputError(f"artifact {artifact} does not exist; give an .onnx or .tflite file")
    form = FORMATS.get(artifact.suffix)
    if form is None:
        raise BadInputError(f"artifact {artifact} must end in .onnx or .tflite; got {artifact.suffix!r}")
    if not names:
        return [target for target in LOCAL_TARGETS.values() if target.artifact_format == form]
    targets = [find_target(name) for name in names]
    for target in targets:
        if target.artifact_format != form:
            raise BadInputError(
                f"target {target.name} runs .{target.artifact_format} files; {artifact} is {form}: "
                "choose another target or file"
            )
    return targets


def show_outcomes(console: Console, artifact: Path, outcomes: dict[str, Measurement | Failure]) -> None:
    """One line a target: latency, memory, conditions, and what to know about them."""
    table = Table(title=escape(str(artifact)), title_justify="left")
    for heading in (
        "target",
        "p50 ms",
        "95 % interval",
        "p90 ms",
        "p99 ms",
        "peak MiB",
        "file KiB",
        "runtime",
    ):
        table.add_column(heading, justify="left" if heading in {"target", "runtime"} else "right")
    for name, outcome in outcomes.items():
        if isinstance(outcome, Failure):
            first = outcome.message.partition("\n")[0]
            table.add_row(name, f"[red]{outcome.kind}[/red]", *[""] * 5, escape(first[:60]))
            continue
        latency, memory, conditions = outcome.latency, outcome.memory, outcome.conditions
        table.add_row(
            name + ("" if outcome.settled else " (did not settle)"),
            f"{latency.p50_ms:.4f}",
            f"{latency.p50_low_ms:.4f}–{latency.p50_high_ms:.4f}",
            f"{latency.p90_ms:.4f}",
            f"{latency.p99_ms:.4f}",
            f"{memory.peak_bytes / 2**20:.1f}",
            f"{memory.file_bytes / 2**10:.0f}",
            f"{conditions.runtime} {conditions.runtime_version}, {conditions.threads} thread(s)",
        )
    console.print(table)
    for name, outcome in outcomes.items():
        for warning in getattr(outcome, "warnings", ()):
            console.print(f"{name}: {warning}", highlight=False, markup=False)
