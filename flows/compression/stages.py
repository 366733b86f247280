"""The stations of a run, each in terms of the library: what a Prefect task calls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from device_bench.errors import BadInputError, RunError
from device_bench.protocol import Failure
from exporters.candidates import ShapeBench
from exporters.profile import unit_shares, units_of_layers
from exporters.proof import Prover
from flows.compression.bookkeeping import Session
from flows.compression.job import CompressJob, TeacherChoice
from flows.compression.sources import at_hand, fetch_source, keep_source
from flows.compression.tampering import check_robustness
from pipeline.data import load_dataset
from pipeline.data.base import Dataset
from pipeline.database import default_store
from pipeline.evaluation import chance_of
from pipeline.experience import ExperienceStore, Trial, TrialLog
from pipeline.methods.ensemble import Ensemble
from pipeline.model import load_model
from pipeline.plan import CompressionPlan, RecoveryChoice
from pipeline.policy import load_policy
from pipeline.policy.base import Change, Effect, Policy, PolicyContext
from pipeline.policy.given import GivenPolicy
from pipeline.pretraining import trained_weights
from pipeline.progress import reporter
from pipeline.reward import Baseline
from pipeline.search import TrialRequest, Workbench, changes_to_probe, latencies, probe, run_trial
from pipeline.space import PlanSpace
from pipeline.target import find_target
from pipeline.task import ModelSpec, Task
from pipeline.tracing import trace

WHOLE = CompressionPlan()
# Effects of single changes are of no use to these.
POLICIES_WITHOUT_PROBES = ("uniform", "random", "tpe", "nsga2", "reinforce", "bisection")
# These go by what training leaves of a plan, so each of their trials is recovered as soon as it is made.
POLICIES_THAT_TRAIN = ("bisection",)
# Before recovery a plan may have forgotten nearly all: so much of what the original knows above chance must
# be left for a trial to be worth it, with a recovery to follow and without. Of plans of ResNet-20 on CIFAR-10
# one with 0.20 left came back within a point in 24 epochs, and one with 0.12 did not.
LEAST_GAIN_BEFORE_RECOVERY, LEAST_GAIN = 0.15, 0.5
# What keeps more than that comes back within a few tenths of a point: there, only speed counts.
MOST_GAIN_BEFORE_RECOVERY = 0.6


def prepare_station(job: CompressJob, folder: Path) -> Session:
    """Load everything a run needs and open its books."""
    root = Path(job.data_root) if job.data_root else None
    dataset = load_dataset(job.data, root, job.seed)
    if job.robustness:
        check_robustness(dataset)
    spec = ModelSpec(
        source=job.model, weights=job.weights, input_shape=dataset.input_shape, outputs=dataset.outputs
    )
    _check_plan(job, spec)
    spec, foreign = _with_weights(spec, dataset, job)
    # A model of the user's own may draw its weights: a resumed run must get the same ones.
    torch.manual_seed(job.seed)
    fetch_source(spec, folder)
    module = load_model(at_hand(spec, folder))
    keep_source(spec, folder)
    graph = trace(module, spec.input_shape)
    if job.plan is not None:
        job.plan.checked(graph)
    reporter().advance(1, f"{len(graph.units)} units, {len(graph.blocks)} removable blocks")
    targets = tuple(find_target(name).model_copy(update={"threads": job.threads}) for name in job.targets)
    task = Task(model=spec, data=dataset.name, data_root=job.data_root, targets=targets, budget=job.budget)
    prover = Prover(dataset, task.fingerprint, units_of_layers(graph))
    bench = ShapeBench(module, graph, targets, prover.calibration, folder / "measured")
    space = PlanSpace.of(graph, max(target.width_step for target in targets))
    session = Session(
        job=job,
        folder=folder,
        workbench=Workbench(task, dataset, module, graph, space, bench, job.seed),
        spec=spec,
        bench=bench,
        prover=prover,
        log=TrialLog(folder / "trials.jsonl"),
        store=ExperienceStore(default_store()),
        weights_are_foreign=foreign,
        taught_by=_taught_by(job, spec, module, dataset),
    )
    session.open_books()
    return session


def _check_plan(job: CompressJob, spec: ModelSpec) -> None:
    """Nothing, if the job's plan fits its zoo network; before that is trained on first use.

    Raises:
        PlanError: it does not; names the unit, block or layer.
    """
    if job.plan is not None and spec.weights is None:
        job.plan.checked(trace(load_model(spec), spec.input_shape))


def _with_weights(spec: ModelSpec, dataset: Dataset, job: CompressJob) -> tuple[ModelSpec, bool]:
    """The spec with weights to load, and whether others made them. Zoo models without any are trained now."""
    from pipeline.zoo import MODELS

    if spec.weights is not None or spec.source not in MODELS:
        return spec, True
    watch = reporter()

    def tell(share: float, text: str) -> None:
        watch.advance(share, f"training {spec.source} on first use: {text}")

    return spec.model_copy(update={"weights": str(trained_weights(spec, dataset, job.seed, tell))}), False


def _taught_by(job: CompressJob, spec: ModelSpec, module: nn.Module, dataset: Dataset) -> nn.Module:
    """The original, or it and the job's further teachers as one; each is run once here.

    Raises:
        BadInputError: a teacher of one head, where the data has no such head.
    """
    if not job.teachers:
        return module
    asked = [
        ModelSpec(
            source=teacher.model,
            weights=teacher.weights,
            input_shape=spec.input_shape,
            outputs=_answers_of(teacher, dataset),
        )
        for teacher in job.teachers
    ]
    heat = (job.plan.recovery if job.plan is not None else RecoveryChoice()).temperature
    return Ensemble(
        [module, *map(load_model, asked)],
        [1.0, *(teacher.share for teacher in job.teachers)],
        dataset.metric,
        heat,
        dataset.heads,
        [None, *(teacher.head for teacher in job.teachers)],
    )


def _answers_of(teacher: TeacherChoice, dataset: Dataset) -> int:
    """How many outputs a teacher must have."""
    if teacher.head is None:
        return dataset.outputs
    if teacher.head >= len(dataset.heads):
        told = f"heads 0 to {len(dataset.heads) - 1}" if dataset.heads else "one task and no heads"
        raise BadInputError(
            f"teacher {teacher.model} is to answer head {teacher.head}; {dataset.name} has {told}: "
            f"{'give one of them' if dataset.heads else 'leave head out'}"
        )
    return dataset.heads[teacher.head]


def baseline_station(session: Session) -> PolicyContext:
    """Judge the original on the search split, and measure it as plain INT8 on every target."""
    bench = session.workbench
    with session.timed("baseline"):
        accuracy = bench.judge(bench.module, bench.dataset.search)
        outcomes = bench.bench.measure(bench.module, WHOLE)
    for name, outcome in outcomes.items():
        if isinstance(outcome, Failure):
            raise RunError(f"the plain INT8 export does not run on {name}: {outcome.kind}: {outcome.message}")
        session.baselines.append(
            Baseline(
                target=name,
                accuracy=accuracy,
                metric=bench.dataset.metric,
                latency_ms=outcome.latency.p50_ms,
                peak_memory_bytes=outcome.memory.peak_bytes,
            )
        )
    session.fair_score = accuracy
    if session.search_was_seen:
        session.fair_score = bench.judge(bench.module, session.verdict_split())
        reporter().note(
            "others' weights may have seen the search split: recovered candidates are held against the float "
            f"model on training samples that both have seen ({session.fair_score:.2f})"
        )
    session.shares = _shares(session)
    reporter().advance(2, f"float {accuracy:.2f} on the search split")
    return PolicyContext(
        graph=bench.graph,
        space=bench.space,
        budget=bench.task.budget,
        targets=bench.task.targets,
        float_accuracy=accuracy,
        base_latency_ms=latencies(outcomes),
        seed=session.job.seed,
        metric=bench.dataset.metric,
        shares=session.shares,
        chance=chance_of(bench.dataset),
        least_gain=LEAST_GAIN_BEFORE_RECOVERY if session.job.recovery_epochs > 0 else LEAST_GAIN,
        most_gain=MOST_GAIN_BEFORE_RECOVERY if session.job.recovery_epochs > 0 else 1.0,
    )


def _shares(session: Session) -> dict[str, dict[str, float]]:
    """Each unit's share of plain INT8's latency, by target; one that cannot tell is noted and left out."""
    bench = session.workbench
    with session.timed("profile"):
        outcomes = bench.bench.profile(bench.module, WHOLE)
    found = {}
    for name, outcome in outcomes.items():
        if isinstance(outcome, Failure):
            reporter().note(f"no profile of the units on {name}: {outcome.kind}: {outcome.message}")
        else:
            found[name] = unit_shares(outcome, units_of_layers(bench.graph))
    return found


def changes_left(session: Session, context: PolicyContext) -> list[Change]:
    """The single changes that the run's policy wants to learn from and that were not probed yet."""
    if session.job.plan is not None or session.job.policy in POLICIES_WITHOUT_PROBES:
        return []
    wanted = changes_to_probe(context.graph, context.space)
    known = session.effects
    return [c for c in wanted if c not in known or session.lacks_present(known[c].latency_ms)]


def probe_station(session: Session, change: Change) -> Effect:
    """Measure one single change and keep what was found."""
    with session.timed("probes"):
        effect, answers = probe(session.workbench, change)
    session.keep_probe(change, effect, answers)
    return effect


def trial_station(session: Session, context: PolicyContext, number: int) -> Trial | None:
    """The trial of that number, from the books or made now; None if the policy has no new plan."""
    known = next((trial for trial in session.trials if trial.number == number), None)
    if known is not None:
        lacks = known.failure is None and session.lacks_present(known.latency_ms)
        return _completed(session, known) if lacks else known
    context = replace(context, targets=session.present)
    # The first trial comes before the probes that most policies learn from, so from features alone: it shows
    # at once that building, exporting and measuring work.
    policy = policy_of_job(session.job)
    if policy.name in POLICIES_THAT_TRAIN:
        context = _as_recovered(session, context)
    plans = policy.propose(context, session.trials, 1)
    if not plans:
        return None
    with session.timed("trials"):
        request = TrialRequest(number, session.workbench.settled(plans[0]), policy.name)
        found = run_trial(session.workbench, request, session.baselines)
    if found.failure is not None:
        told = f"{found.failure.kind}: {found.failure.message}"
        if session.job.plan is not None:
            raise RunError(f"the plan cannot be built and measured: {told}")
        reporter().note(f"trial {number} failed: {told}")
    session.keep_trial(found)
    return found


def _as_recovered(session: Session, context: PolicyContext) -> PolicyContext:
    """The context with score and budget as recovered candidates are held against them."""
    yardstick = session.yardstick(context)
    budget = context.budget.model_copy(update={"max_drop": context.budget.max_drop / yardstick.counts})
    return replace(context, float_accuracy=yardstick.fair_score, budget=budget)


def policy_of_job(job: CompressJob) -> Policy:
    """Who proposes plans: the job's policy, or the one plan that it names."""
    return load_policy(job.policy) if job.plan is None else GivenPolicy(job.plan)


def _completed(session: Session, known: Trial) -> Trial:
    """A trial measured on targets that were gone when it was made; what was measured is not made again."""
    with session.timed("trials"):
        request = TrialRequest(known.number, known.plan, known.origin)
        found = run_trial(session.workbench, request, session.baselines)
    update = {"plan": known.plan, "accuracy_recovered": known.accuracy_recovered, "seconds": known.seconds}
    done = found.model_copy(update=update)
    session.keep_trial(done)
    return done
