"""`edgeloop compress`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from device_bench.errors import BadInputError
from flows.cli.guard import Debug, Json, guarded, typer


def compress(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A job file (.toml), or a model: .onnx, .keras, .h5, SavedModel.", show_default=False
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Zoo name, module:callable, file. Default: cnn.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set name, .npz file, or module:callable. Default: digits.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the model (.safetensors).")] = None,
    data_root: Annotated[
        str | None, typer.Option(help="Folder of the data sets.", envvar="EDGELOOP_DATA")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Where it shall run; may be repeated.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of the metric it may lose.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Most milliseconds for one inference.")] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed-up over the plain INT8 export.")
    ] = None,
    max_peak_memory_bytes: Annotated[int | None, typer.Option(help="Most memory while running.")] = None,
    max_artifact_bytes: Annotated[int | None, typer.Option(help="Largest file.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="meta, gp, rl2, maml, fomaml, reptile, anil, recurrent, reinforce, nsga2, tpe, random, "
            "uniform, greedy, knapsack, bisection, or the file of a trained one. Default: meta."
        ),
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="One plan to apply as it is (.toml or .json), instead of a search."),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Plans to build and measure. Default: 12.")] = None,
    recovery_epochs: Annotated[float | None, typer.Option(help="Epochs of fine-tuning. Default: 8.")] = None,
    recoveries: Annotated[
        int | None, typer.Option(help="Plans to recover for each target. Default: 2.")
    ] = None,
    rehearsals: Annotated[
        int | None,
        typer.Option(
            help="Plans to recover for a twelfth of that, or 100 steps, to see which to choose. Default: 6."
        ),
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="A further teacher for recovery, MODEL=WEIGHTS or an ONNX file; may be repeated."),
    ] = None,
    robustness: Annotated[
        bool | None,
        typer.Option("--robustness", help="Also judge under FGSM, PGD and common corruptions."),
    ] = None,
    exactness: Annotated[
        bool | None,
        typer.Option("--exactness", help="Also hold each INT8 file against torch with the same numbers."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtimes. Default: 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything random. Default: 0.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for runs. Default: runs.")] = None,
    runner: Annotated[
        str | None, typer.Option(help="Who builds and judges candidates: local or dask. Default: local.")
    ] = None,
    scheduler: Annotated[str | None, typer.Option(help="The Dask cluster's: tcp://HOST:PORT.")] = None,
    store: Annotated[
        str | None, typer.Option(help="Database of trials: a SQLite file or a URL.", envvar="EDGELOOP_STORE")
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(help="Where released files are kept: a folder or a URL.", envvar="EDGELOOP_ARTIFACTS"),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compress a model within a budget, export it, and prove it on every target."""
    given = {
        name: value
        for name, value in locals().items()
        if name not in {"source", "store", "artifacts", "resume", "json", "debug"} and value is not None
    }
    # No part of the job: a URL may hold a password, and a job is written into its run's folder.
    for variable, place in (("EDGELOOP_STORE", store), ("EDGELOOP_ARTIFACTS", artifacts)):
        if place is not None:
            os.environ[variable] = place
    raise typer.Exit(guarded(lambda: _compress(source, given, resume, json), debug))


def _compress(source: Path | None, given: dict[str, Any], resume: Path | None, as_json: bool) -> int:
    from flows.compression.start import run_compress, resume_compress  # noqa: I001
    from flows.compression.job import make_job, read_job

    if resume is not None:
        if source is not None:
            raise BadInputError(
                f"--resume goes on with the job as it was; it cannot take {source} as well: leave one out"
            )
        return resume_compress(resume, given, as_json=as_json)
    keys: dict[str, object] = {}
    if source is not None and source.suffix == ".toml":
        keys = read_job(source)
    elif source is not None:
        if "model" in given:
            raise BadInputError(
                f"the model is given twice, as {source} and as --model {given['model']}: leave one out"
            )
        keys = {"model": str(source)}
    return run_compress(make_job(keys | given), as_json=as_json)
