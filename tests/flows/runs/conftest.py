"""Folders of runs as `compress` leaves them, with figures made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from small_graphs import measurement

from device_bench.protocol import Conditions
from flows.cli import app
from flows.compression.job import CompressJob
from pipeline.experience import Trial, TrialLog
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.result import Entry, RunResult, Speedup, TargetResult, TrialPoint
from pipeline.task import Budget

TARGET = "local-litert"
FIRST, SECOND = "20260105-100000-resnet20-digits", "20260106-090000-resnet20-digits"
PLAIN_BYTES = 300_000

Make = Callable[..., Path]


def entry(accuracy: float, p50_ms: float, size: int, **conditions: object) -> Entry:
    """One artifact with made-up figures."""
    known: Conditions = measurement(p50_ms).conditions
    return Entry(
        accuracy=accuracy,
        p50_ms=p50_ms,
        p90_ms=1.1 * p50_ms,
        peak_memory_bytes=10 * size,
        artifact_bytes=size,
        artifact="model.tflite",
        p50_low_ms=0.99 * p50_ms,
        p50_high_ms=1.01 * p50_ms,
        settled=True,
        conditions=known.model_copy(update=conditions),
    )


def plan(keep_ratio: float) -> CompressionPlan:
    """One unit narrower, one block gone."""
    return CompressionPlan(units={"conv1": UnitChoice(keep_ratio=keep_ratio)}, removed=("layer1.0",))


def trial(number: int, keep_ratio: float, recovered: float | None = None) -> Trial:
    """A trial that was measured."""
    return Trial(
        number=number,
        plan=plan(keep_ratio),
        origin="greedy",
        accuracy=70.0 + number,
        accuracy_recovered=recovered,
        latency_ms={TARGET: 0.1 * number},
    )


def result(
    run_id: str, keep_ratio: float, speedup: float, plain_ms: float, **conditions: object
) -> RunResult:
    """What a finished run found: its chosen file `speedup` times as fast as plain INT8."""
    chosen = plan(keep_ratio)
    found = TargetResult(
        float=entry(90.0, 3 * plain_ms, 1_000_000, **conditions),
        plain_int8=entry(89.8, plain_ms, PLAIN_BYTES, **conditions),
        chosen=entry(89.0 + keep_ratio, plain_ms / speedup, int(PLAIN_BYTES / speedup), **conditions),
        speedup_vs_plain_int8=Speedup(ratio=speedup, low=0.98 * speedup, high=1.02 * speedup, rounds=12),
        plan=chosen,
        plan_id=chosen.plan_id,
        budget_met=True,
    )
    points = tuple(
        TrialPoint(
            number=number,
            plan_id=f"{number:012x}",
            accuracy=80.0 + number,
            latency_ms={TARGET: 0.1 * number},
            recovered=number == 2,
        )
        for number in (1, 2)
    )
    return RunResult(
        run_id=run_id, model="resnet20", data="digits", metric="accuracy", budget=Budget(), budget_met=True,
        trials=2, seconds=75.0, seconds_by_stage={"trials": 75.0}, targets={TARGET: found}, points=points,
        notes=("the weights are others'",),
    )  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """An empty folder of runs."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def unfinished(runs: Path) -> Make:
    """Makes a run that was killed after two of five trials."""

    def make(run_id: str = "20260107-080000-cnn-digits", **more: object) -> Path:
        run = runs / run_id
        run.mkdir()
        job = CompressJob(model="resnet20", targets=(TARGET,), policy="greedy", trials=5, **more)
        (run / "job.json").write_text(job.model_dump_json())
        log = TrialLog(run / "trials.jsonl")
        for number, keep_ratio, recovered in ((1, 0.75, None), (2, 0.5, None), (2, 0.5, 88.0)):
            log.append(trial(number, keep_ratio, recovered))
        return run

    return make


@pytest.fixture
def finished(unfinished: Make) -> Make:
    """Makes a finished run with all that its report is written from."""

    def make(
        run_id: str = FIRST,
        keep_ratio: float = 0.5,
        speedup: float = 2.0,
        plain_ms: float = 0.4,
        **conditions: object,
    ) -> Path:
        run = unfinished(run_id)
        found = result(run_id, keep_ratio, speedup, plain_ms, **conditions)
        (run / "result.json").write_text(found.model_dump_json())
        place = run / "targets" / TARGET
        place.mkdir(parents=True)
        for form in ("float", "plain_int8", "chosen"):
            measured = measurement(plain_ms)
            (place / f"{form}.measurement.json").write_text(measured.model_dump_json())
        return run

    return make


@pytest.fixture
def ask(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `edgeloop` with the given arguments where those runs are, on a wide terminal."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    monkeypatch.chdir(runs.parent)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object, code: int = 0) -> Result:
        done: Result = CliRunner().invoke(app, list(map(str, arguments)))
        assert done.exit_code == code, done.output
        return done

    return run
