"""`edgeloop bench` and `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer


def bench(
    artifact: Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Where to measure: a target or a device; may be repeated.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another file to compare with, by interleaved rounds.")
    ] = None,
    accelerator: Annotated[str | None, typer.Option(help="cpu, cuda, … Default: cpu.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime. Default: 1.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the latency goes, operator by operator.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure any artifact, here or on a board, and compare it with another."""

    def run() -> int:
        from flows.measuring.bench import BenchOrder, bench_artifact

        order = BenchOrder(artifact, tuple(target or ()), threads, accelerator, compare, profile)
        return bench_artifact(order, as_json=json)

    raise typer.Exit(guarded(run, debug))


def calibrate(
    target: Annotated[str, typer.Option(help="The target to make a latency model of.")],
    minutes: Annotated[float, typer.Option(help="How long to measure nets on it.")] = 6.0,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what was measured there before.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Learn what layers cost on a target, so that candidates can be ranked before they are measured."""

    def run() -> int:
        from flows.measuring.calibrate import calibrate_target

        return calibrate_target(target, minutes, resume=resume, as_json=json)

    raise typer.Exit(guarded(run, debug))
