"""The end of a run: the test split is opened, files are proved and compared, the report is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from device_bench.protocol import Measurement, Record
from device_bench.storage import write_whole
from exporters.base import Artifact
from exporters.proof import REDUCED, SUFFIX, speedup
from flows.compression.bookkeeping import Session
from flows.compression.report_files import samples_file, write_run_report
from flows.compression.tampering import tampered_rows
from pipeline.compressor import RECIPE_FILE, WEIGHTS_FILE, Recipe, load_compressed, save_compressed
from pipeline.data.base import Metric, Split
from pipeline.plan import CompressionPlan
from pipeline.progress import reporter
from pipeline.result import Entry, RunResult, Speedup, TargetResult, TrialPoint, UnitRow
from pipeline.robustness_row import RobustnessRow
from pipeline.selection import Yardstick, best_recovered
from pipeline.target import Target
from pipeline.task import Budget

WHOLE = CompressionPlan()
# Exports, three artifacts, two comparisons: what `prove_target` tells of its way.
PROOF_STEPS = 6


@dataclass(frozen=True)
class Chosen:
    """What a target gets: a plan and the module it made."""

    plan: CompressionPlan
    module: nn.Module
    folder: Path


def choose(session: Session, yardstick: Yardstick, target: Target) -> Chosen:
    """The fastest recovered candidate within the budget on the search split; without one the whole model.

    A plan that was given is what it gets, whatever that loses; the result says so.
    """
    budget = session.job.budget
    found = best_recovered(session.trials, target.name, yardstick, budget.max_drop)
    kept = session.job.plan is not None
    worse = found is not None and _worse_than_whole(session, yardstick, found.accuracy_recovered, budget)
    if found is None or (worse and not kept):
        folder = session.folder / "candidates" / WHOLE.plan_id
        folder.mkdir(parents=True, exist_ok=True)
        save_compressed(session.workbench.module, session.recipe(WHOLE, folder), folder)
        return Chosen(WHOLE, session.workbench.module, folder)
    folder = session.folder / "candidates" / found.plan.plan_id
    recipe = Recipe.model_validate_json((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    return Chosen(recipe.plan, load_compressed(folder), folder)


def _worse_than_whole(
    session: Session, yardstick: Yardstick, recovered: float | None, budget: Budget
) -> bool:
    """True if the best recovered candidate misses the accuracy that plain INT8 keeps.

    Where the budget also asks for speed that the whole lacks, both miss; the recovered one is then kept.
    """
    asks_for_speed = budget.max_latency_ms is not None or budget.min_speedup is not None
    return recovered is not None and yardstick.drop(recovered) > budget.max_drop and not asks_for_speed


def prove_target(session: Session, yardstick: Yardstick, target: Target, test: Split) -> TargetResult:
    """Float, plain INT8 and chosen on one target: test split, full measurement, interleaved comparison."""
    chosen = choose(session, yardstick, target)
    place = session.folder / "targets" / target.name
    place.mkdir(parents=True, exist_ok=True)
    reporter().advance(0, "exports: float, plain INT8, chosen")
    form, prover, whole = target.artifact_format, session.prover, session.workbench.module
    base = session.folder / "baseline"
    exhibits = {
        "float": (prover.export(whole, base, form, "float32", WHOLE), whole),
        "plain_int8": (prover.export_for(target, whole, base, WHOLE), whole),
        "chosen": (prover.export_for(target, chosen.module, chosen.folder, chosen.plan), chosen.module),
    }
    if Path(exhibits["chosen"][0].path).name == REDUCED:
        reporter().note(f"{target.name}: products of 8 bits overflow there; the file has weights of 7 bits")
    entries: dict[str, Entry] = {}
    for step, (label, (artifact, module)) in enumerate(exhibits.items(), start=1):
        reporter().advance(step, f"{label.replace('_int8', ' INT8')}: parity, test split, measurement")
        parity = prover.parity(artifact, module, target)
        entries[label], outcome = prover.entry(artifact, target, test, session.folder, parity)
        if session.job.exactness and artifact.precision == "int8":
            exactness = prover.exactness(artifact, module)
            entries[label] = entries[label].model_copy(update={"exactness": exactness})
        _keep_samples(session, target, label, outcome)
    reporter().advance(4, "interleaved comparison with plain INT8")
    same = chosen.plan == WHOLE
    versus_plain = (
        Speedup(ratio=1.0, low=1.0, high=1.0, rounds=0)
        if same
        else speedup(exhibits["plain_int8"][0], exhibits["chosen"][0], target)
    )
    reporter().advance(5, "interleaved comparison with float")
    versus_float = speedup(exhibits["float"][0], exhibits["chosen"][0], target)
    _write_record(place / "plan.json", chosen.plan)
    tampered: tuple[RobustnessRow, ...] = ()
    if session.job.robustness:
        tampered = tampered_rows(session, exhibits["chosen"][0], chosen.module, target, test)
    misses = missed(session.job.budget, session.workbench.dataset.metric, entries, versus_plain, versus_float)
    return TargetResult(
        float=entries["float"],
        plain_int8=entries["plain_int8"],
        chosen=entries["chosen"],
        speedup_vs_plain_int8=versus_plain,
        speedup_vs_float=versus_float,
        plan=chosen.plan,
        plan_id=chosen.plan.plan_id,
        budget_met=not misses,
        misses=tuple(misses),
        robustness=tampered,
    )


def missed(
    budget: Budget, metric: Metric, entries: dict[str, Entry], versus_plain: Speedup, versus_float: Speedup
) -> list[str]:
    """Each constraint that the chosen artifact misses, and by how much; reasons to reject it."""
    chosen = entries["chosen"]
    drop = metric.drop(entries["float"].accuracy, chosen.accuracy)
    found = []
    if drop > budget.max_drop + 1e-9:
        found.append(f"{metric} falls by {drop:.2f}; at most {budget.max_drop:.2f} is allowed")
    if budget.max_latency_ms is not None and chosen.p50_ms > budget.max_latency_ms:
        found.append(f"p50 is {chosen.p50_ms:.3f} ms; at most {budget.max_latency_ms:.3f} is allowed")
    if budget.min_speedup is not None and versus_plain.ratio < budget.min_speedup:
        found.append(
            f"it is {versus_plain.ratio:.2f}× as fast as plain INT8; {budget.min_speedup:.2f}× is asked for"
        )
    peak = budget.max_peak_memory_bytes
    if peak is not None and chosen.peak_memory_bytes > peak:
        found.append(f"peak memory is {chosen.peak_memory_bytes} bytes; at most {peak} is allowed")
    size = budget.max_artifact_bytes
    if size is not None and chosen.artifact_bytes > size:
        found.append(f"the file has {chosen.artifact_bytes} bytes; at most {size} is allowed")
    if versus_float.high < 1.0:
        found.append(
            f"INT8 is slower than float on this target ({versus_float.ratio:.2f}×): use the float file"
        )
    return found


def gather_files(session: Session, targets: dict[str, TargetResult]) -> None:
    """Put the main files at the top of the folder: the first target's plan and module, one file a format."""
    first = next(iter(targets.values()))
    for name, found in targets.items():
        source = session.folder / "candidates" / found.plan_id
        _place_module(session, source, found.plan, session.folder / "targets" / name)
    source = session.folder / "candidates" / first.plan_id
    _place_module(session, source, first.plan, session.folder)
    _write_record(session.folder / "plan.json", first.plan)
    module = load_compressed(source)
    floats = session.prover.export(module, source, "onnx", "float32", first.plan)
    shutil.copyfile(floats.path, session.folder / "model.onnx")
    by_format = {
        target.artifact_format: target
        for target in reversed(session.workbench.task.targets)
        if target.name in targets
    }
    for form in ("onnx", "tflite"):
        user = by_format.get(form)
        plan = first.plan if user is None else targets[user.name].plan
        folder = session.folder / "candidates" / plan.plan_id
        module, prover = load_compressed(folder), session.prover
        artifact: Artifact = (
            prover.export(module, folder, form, "int8", plan)
            if user is None
            else prover.export_for(user, module, folder, plan)
        )
        shutil.copyfile(artifact.path, session.folder / SUFFIX[form, "int8"])


def _place_module(session: Session, source: Path, plan: CompressionPlan, folder: Path) -> None:
    shutil.copyfile(source / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    _write_record(folder / RECIPE_FILE, session.recipe(plan, folder))


def _write_record(path: Path, record: Record) -> None:
    write_whole(path, record.model_dump_json(indent=2).encode() + b"\n")


def conclude(session: Session, targets: dict[str, TargetResult], notes: Sequence[str]) -> RunResult:
    """Write the run's files, `result.json` and `report.html`."""
    gather_files(session, targets)
    graph, task = session.workbench.graph, session.workbench.task
    widths = {name: found.plan.widths(graph) for name, found in targets.items()}
    result = RunResult(
        run_id=session.folder.name,
        model=task.model.source,
        data=task.data,
        metric=session.workbench.dataset.metric.value,
        higher_is_better=session.workbench.dataset.metric.higher_is_better,
        budget=task.budget,
        budget_met=not session.bench.gone and all(found.budget_met for found in targets.values()),
        trials=len(session.trials),
        seconds=sum(session.seconds.values()),
        seconds_by_stage=session.seconds,
        targets=targets,
        lost=dict(session.bench.gone),
        search_was_seen=session.search_was_seen,
        points=tuple(_point(session, number) for number in range(len(session.trials))),
        units=tuple(
            UnitRow(
                name=unit.name,
                layers=unit.layers,
                width=unit.width,
                widths={name: known[unit.name] for name, known in widths.items()},
                macs_share=unit.macs / max(1, graph.macs),
                latency_shares={name: known[unit.name] for name, known in session.shares.items()},
            )
            for unit in graph.units
        ),
        removed={name: found.plan.removed for name, found in targets.items()},
        notes=tuple(notes),
    )
    _write_record(session.folder / "result.json", result)
    write_run_report(session.folder, result)
    return result


def _point(session: Session, index: int) -> TrialPoint:
    trial = session.trials[index]
    recovered = trial.accuracy_recovered is not None
    return TrialPoint(
        number=trial.number,
        plan_id=trial.plan.plan_id,
        accuracy=trial.accuracy_recovered if recovered else trial.accuracy or 0.0,  # type: ignore[arg-type]
        latency_ms=trial.latency_ms,
        recovered=recovered,
        origin=trial.origin,
        failure=None if trial.failure is None else f"{trial.failure.kind}: {trial.failure.message}",
    )


def _keep_samples(session: Session, target: Target, label: str, outcome: Measurement) -> None:
    samples_file(session.folder, target.name, label).write_text(outcome.model_dump_json(), encoding="utf-8")
