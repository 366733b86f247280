"""Training in a run: rehearsals, which show what recovers, and recoveries, which make what is proved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from exporters.proof import REDUCED, SUFFIX
from flows.compression.bookkeeping import Session
from pipeline.compressor import save_compressed
from pipeline.data.base import Metric
from pipeline.experience import Trial
from pipeline.methods.corrections import make_corrections_
from pipeline.methods.distillation import task_loss
from pipeline.methods.layer_methods import hold_, layer_choices, release_, sparse_layers
from pipeline.methods.matching import Matcher, common_places
from pipeline.methods.quantization_aware import train_aware_
from pipeline.methods.recovery import Lesson, RecoveryReport, native_bf16, recover_
from pipeline.plan import CompressionPlan, RecoveryChoice
from pipeline.progress import reporter
from pipeline.target import find_target
from pipeline.trained_range import FINGERPRINT_SAMPLES, write_ranges

# Points that no INT8 file of a sound module has lost here.
FAR = 5.0


def rehearse_station(session: Session, found: Trial) -> Trial:
    """Recover a trial's plan for a short while and judge the float module on the verdict split."""
    started = time.monotonic()
    epochs = session.rehearsal_share * session.job.recovery_epochs
    choice = found.plan.recovery.model_copy(update={"epochs": epochs})
    module = session.workbench.build(found.plan.where_training_begins())
    checkpoint = session.folder / "candidates" / found.plan.plan_id / "rehearsal.safetensors"
    with session.timed("rehearsal"):
        _fine_tune(session, module, found.plan, choice, checkpoint)
        accuracy = session.workbench.judge(module, session.verdict_split())
    seconds = found.seconds | {"rehearsal": time.monotonic() - started}
    done = found.model_copy(update={"accuracy_rehearsed": accuracy, "seconds": seconds})
    session.keep_trial(done)
    return done


def recover_station(session: Session, found: Trial, target_name: str) -> Trial:
    """Recover a trial's plan, export it for the target, and judge the INT8 file on the verdict split."""
    started = time.monotonic()
    job = session.job
    choice = found.plan.recovery.model_copy(update={"epochs": job.recovery_epochs})
    plan = found.plan.model_copy(update={"recovery": choice})
    folder = session.folder / "candidates" / plan.plan_id
    module = session.workbench.build(found.plan.where_training_begins())
    for name in (*SUFFIX.values(), REDUCED):
        # Made of other weights, by a process that was killed before it wrote the trial down.
        (folder / name).unlink(missing_ok=True)
    with session.timed("recovery"):
        report = _fine_tune(session, module, plan, choice, folder / "checkpoint.safetensors")
    _note_pace(report)
    if choice.quantization_epochs > 0:
        with session.timed("quantization-aware training"):
            _train_for_int8(session, module, plan, folder)
    if plan.corrections:
        samples = torch.from_numpy(session.prover.calibration)
        make_corrections_(module.eval(), plan, session.workbench.graph, samples)
    save_compressed(module, session.recipe(plan, folder), folder)
    target = find_target(target_name).model_copy(update={"threads": job.threads})
    with session.timed("export"):
        artifact = session.prover.export_for(target, module, folder, plan)
        accuracy = session.prover.metric(artifact, target, session.verdict_split())
    _note_lost_in_export(session, module, accuracy, f"trial {found.number} for {target_name}")
    seconds = found.seconds | {"recovery": time.monotonic() - started}
    done = found.model_copy(update={"plan": plan, "accuracy_recovered": accuracy, "seconds": seconds})
    session.keep_trial(done)
    return done


def _fine_tune(
    session: Session,
    module: torch.nn.Module,
    plan: CompressionPlan,
    choice: RecoveryChoice,
    checkpoint: Path,
) -> RecoveryReport:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    watch = reporter()
    lesson = _lesson(session, choice, checkpoint)
    hold_(module, layer_choices(plan, session.workbench.graph))
    try:
        with _matched(session, module, lesson) as matched:
            return recover_(module, matched, watch.advance)
    finally:
        release_(module)


def _train_for_int8(session: Session, module: torch.nn.Module, plan: CompressionPlan, folder: Path) -> None:
    watch, choice = reporter(), plan.recovery
    watch.note(f"quantization-aware training: {choice.quantization_epochs:g} epochs")
    checkpoint = folder / "aware.safetensors"
    samples = torch.from_numpy(session.prover.calibration[:FINGERPRINT_SAMPLES])
    thinned = sparse_layers(module, layer_choices(plan, session.workbench.graph))
    ranges = train_aware_(module, _lesson(session, choice, checkpoint), samples, thinned, watch.advance)
    write_ranges(ranges, folder)


def _lesson(session: Session, choice: RecoveryChoice, checkpoint: Path) -> Lesson:
    return Lesson(
        session.workbench.dataset,
        session.views(),
        session.teacher(native_bf16()),
        choice,
        session.job.seed,
        checkpoint,
        judge=lambda module: session.score(module) if choice.patience else 0.0,
    )


@contextmanager
def _matched(session: Session, module: torch.nn.Module, lesson: Lesson) -> Iterator[Lesson]:
    """The lesson with a matcher, where its choice asks for one."""
    choice, bench = lesson.choice, session.workbench
    if choice.matching == "logits":
        yield lesson
        return
    metric, heads = bench.dataset.metric, bench.dataset.heads
    matcher = Matcher(
        module,
        bench.module,
        choice.matching,
        common_places(bench.graph, module),
        torch.from_numpy(session.prover.calibration[:2]),
        lambda outputs, truth: task_loss(outputs, truth, metric, heads),
    )
    try:
        yield replace(lesson, matcher=matcher)
    finally:
        matcher.close()


def _note_lost_in_export(session: Session, module: torch.nn.Module, accuracy: float, label: str) -> None:
    """Say where a file knows far less than the module it was made of: that is no matter of recovery."""
    metric = session.workbench.dataset.metric
    if metric in (Metric.ACCURACY, Metric.AUC):
        lost = metric.drop(session.workbench.judge(module, session.verdict_split()), accuracy)
        if lost > FAR:
            reporter().note(f"{label}: its INT8 file loses {lost:.1f} points against the recovered module")


def _note_pace(report: RecoveryReport) -> None:
    how = ", ".join(
        word for word, used in (("bfloat16", report.bf16), ("compiled step", report.compiled)) if used
    )
    reporter().note(
        f"recovery: {report.images_per_second:.0f} samples/s ({how or 'float32, eager'}), "
        f"{report.seconds:.0f} s"
    )
