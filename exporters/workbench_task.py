"""A trial task that builds and measures for real: anyone's model on anyone's data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from pydantic import Field

from device_bench.errors import RunError, UnreachableError
from device_bench.protocol import Failure, FailureKind, Record
from exporters.candidates import ShapeBench
from exporters.profile import unit_shares, units_of_layers
from exporters.table_recording import REESTIMATION_SAMPLES, SAMPLES
from pipeline.answer_file import ANSWERS_FILE, AnswerFile
from pipeline.data import NPZ, load_dataset
from pipeline.evaluation import chance_of
from pipeline.experience import Trial, TrialLog
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.policy.base import Change, Effect, PolicyContext, Shape, shape_of
from pipeline.policy.outputs import Outputs
from pipeline.pretraining import trained_weights
from pipeline.reward import Baseline
from pipeline.search import (
    TrialRequest,
    Workbench,
    changes_to_probe,
    plan_of,
    run_answered_trial,
    with_effects,
)
from pipeline.space import PlanSpace
from pipeline.target import find_target
from pipeline.task import Budget, ModelSpec, Task
from pipeline.tracing import trace
from pipeline.zoo import MODELS

WHOLE = CompressionPlan()
# These say something of the target at that moment, not of the plan: it is tried again the next time.
PASSING = (
    FailureKind.UNREACHABLE,
    FailureKind.AGENT_RESTARTED,
    FailureKind.CANCELLED,
    FailureKind.RUNTIME_MISSING,
)


class HeldOutTask(Record):
    """One `[[task]]` of a held-out list.

    `model`: an ONNX file, "module:callable" or a zoo name, which is trained where no `weights` are given.
    `data`: an .npz file, "module:callable" or a data set's name.
    """

    model: str
    data: str
    weights: str | None = None
    target: str = "local-onnxruntime"
    threads: int = Field(default=1, ge=1)
    seed: int = 0

    @property
    def name(self) -> str:
        """Model, data and setting."""
        return f"{Path(self.model).stem}/{Path(self.data).stem}/{self.target}@{self.threads}"


@dataclass(frozen=True)
class WorkbenchSource:
    """A held-out task and where its trials are kept; a `pipeline.tables.contest.TaskSource`.

    Args:
        probed: whether single changes are measured first, for policies to see.
    """

    task: HeldOutTask
    folder: Path
    data_root: Path | None = None
    probed: bool = True

    @property
    def fingerprint(self) -> str:
        """Of the task, and of the files it names."""
        digest = hashlib.sha256(self.task.model_dump_json().encode())
        for name in (self.task.model, self.task.weights, self.task.data):
            if name is not None and Path(name).is_file():
                digest.update(Path(name).read_bytes())
        return digest.hexdigest()[:16]

    def load(self) -> WorkbenchTask:
        """The task with everything loaded, its original judged and measured.

        Raises:
            BadInputError: a name is not known, a file is missing, or model and data do not fit.
        """
        return WorkbenchTask(_workbench(self), self.task.name, self.folder / self.fingerprint, self.probed)


@dataclass(frozen=True, eq=False)
class WorkbenchTask:
    """A `pipeline.tables.trial_task.TrialTask` that builds, judges and measures.

    Args:
        folder: trials are kept here, so that a plan is never tried twice.
    """

    bench: Workbench
    name: str
    folder: Path
    probed: bool = True

    @cached_property
    def chance(self) -> float:
        """The metric of answers that know nothing."""
        return chance_of(self.bench.dataset)

    @cached_property
    def context(self) -> PolicyContext:
        """What a policy may know; single changes are measured now where they were not yet.

        Raises:
            RunError: plain INT8 does not run on the target.
        """
        bench, base = self.bench, self._baseline
        bare = PolicyContext(
            graph=bench.graph,
            space=bench.space,
            budget=bench.task.budget,
            targets=bench.task.targets,
            float_accuracy=base.accuracy,
            base_latency_ms={base.target: base.latency_ms},
            metric=bench.dataset.metric,
            shares=self._shares,
            chance=self.chance,
        )
        if not self.probed:
            return bare
        effects = self._effects()
        return with_effects(bare, effects, self._answers.read(bench.dataset.metric))

    def run(self, plan: CompressionPlan, number: int, origin: str) -> Trial:
        """Try a plan, or tell what came of it before; a target that is gone is a typed failure."""
        known = self._known.get(shape_of(plan))
        if known is None:
            known, _ = self._tried_now(plan, number, origin)
            self._keep(known)
        return known.model_copy(update={"number": number, "origin": origin, "plan": plan})

    def _keep(self, trial: Trial) -> None:
        if trial.failure is None or trial.failure.kind not in PASSING:
            self._known[shape_of(trial.plan)] = trial
            self._log.append(trial)

    def _tried_now(self, plan: CompressionPlan, number: int, origin: str) -> tuple[Trial, Outputs | None]:
        try:
            return run_answered_trial(self.bench, TrialRequest(number, plan, origin), [self._baseline])
        except UnreachableError as error:
            failure = Failure(kind=FailureKind.UNREACHABLE, message=str(error))
            return Trial(number=number, plan=plan, origin=origin, failure=failure), None

    @property
    def tried(self) -> tuple[Trial, ...]:
        """Everything that was tried here, now or before, single changes included."""
        return tuple(self._known.values())

    @cached_property
    def _log(self) -> TrialLog:
        self.folder.mkdir(parents=True, exist_ok=True)
        return TrialLog(self.folder / "trials.jsonl")

    @cached_property
    def _known(self) -> dict[Shape, Trial]:
        return {shape_of(trial.plan): trial for trial in self._log.read()}

    @cached_property
    def _baseline(self) -> Baseline:
        bench = self.bench
        (target,) = bench.task.targets
        found = bench.bench.measure(bench.module, WHOLE)[target.name]
        if isinstance(found, Failure):
            raise RunError(f"plain INT8 of {self.name} does not run: {found.kind}: {found.message}")
        return Baseline(
            target=target.name,
            accuracy=bench.judge(bench.module, bench.dataset.search),
            metric=bench.dataset.metric,
            latency_ms=found.latency.p50_ms,
            peak_memory_bytes=found.memory.peak_bytes,
        )

    @cached_property
    def _shares(self) -> dict[str, dict[str, float]]:
        """Each unit's share of plain INT8's latency; none where the target cannot tell."""
        bench = self.bench
        return {
            name: unit_shares(outcome, units_of_layers(bench.graph))
            for name, outcome in bench.bench.profile(bench.module, WHOLE).items()
            if not isinstance(outcome, Failure)
        }

    @cached_property
    def _answers(self) -> AnswerFile:
        found = AnswerFile(self.folder / ANSWERS_FILE)
        if not found.path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            found.start(self.bench.probed_outputs({}))
        return found

    def _probed(self, change: Change, answered: bool) -> Trial:
        """The trial of a single change; its answers are kept, too."""
        plan = plan_of(self.bench.space, change)
        known = self._known.get(shape_of(plan))
        if known is not None and (answered or known.failure is not None):
            return known
        found, answers = self._tried_now(plan, 0, "probe")
        if found.failure is None and answers is not None:
            self._answers.add(change, answers)
        self._keep(found)
        return found

    def _effects(self) -> dict[Change, Effect]:
        kept = self._answers.read(self.bench.dataset.metric)
        answered = set(kept.changed) if kept is not None else set()
        changes = changes_to_probe(self.bench.graph, self.bench.space)
        tried = {change: self._probed(change, change in answered) for change in changes}
        return {
            change: Effect(accuracy=trial.accuracy, latency_ms=trial.latency_ms)
            for change, trial in tried.items()
            if trial.accuracy is not None and trial.failure is None
        }


def _workbench(source: WorkbenchSource) -> Workbench:
    order = source.task
    dataset = load_dataset(order.data, source.data_root, order.seed)
    dataset = replace(dataset, search=dataset.search.spread(SAMPLES))
    spec = ModelSpec(
        source=order.model,
        weights=order.weights,
        input_shape=dataset.input_shape,
        outputs=dataset.outputs,
    )
    if spec.weights is None and order.model in MODELS:
        path = trained_weights(spec, dataset, order.seed, lambda share, text: None)
        spec = spec.model_copy(update={"weights": str(path)})
    # A model of the user's own may draw its weights.
    torch.manual_seed(order.seed)
    module = load_model(spec)
    graph = trace(module, spec.input_shape)
    target = find_target(order.target).model_copy(update={"threads": order.threads})
    task = Task(model=spec, data=dataset.name, targets=(target,), budget=Budget())
    measured = source.folder / source.fingerprint / "measured"
    bench = ShapeBench(module, graph, (target,), dataset.calibration(), measured)
    space = PlanSpace.of(graph, target.width_step)
    return Workbench(task, dataset, module, graph, space, bench, order.seed, REESTIMATION_SAMPLES)


def seen_from(tasks: Iterable[HeldOutTask], folder: Path) -> tuple[HeldOutTask, ...]:
    """Tasks whose files are named from `folder`, with absolute names."""
    found = []
    for task in tasks:
        files = {
            "model": task.model if task.model.endswith(".onnx") else None,
            "data": task.data if task.data.endswith(NPZ) else None,
            "weights": task.weights,
        }
        update = {name: str((folder / path).absolute()) for name, path in files.items() if path is not None}
        found.append(task.model_copy(update=update))
    return tuple(found)
