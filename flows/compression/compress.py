"""The compression flow: prepare, baseline, first trial, probes, trials, recovery, proof, report.

The command line and a Prefect deployment run this same flow. Each task calls library functions; what they
pass on stays in this process, what must outlive it is in the run's folder.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from device_bench.errors import UnreachableError
from flows.compression.bookkeeping import Session
from flows.compression.cluster import Cluster
from flows.compression.conclusion import PROOF_STEPS, conclude, prove_target
from flows.compression.job import CompressJob
from flows.compression.publication import published
from flows.compression.recovery import recover_station, rehearse_station
from flows.compression.releasing import release_station
from flows.compression.spread_search import probe_all, source_of, try_batch
from flows.compression.stages import (
    POLICIES_THAT_TRAIN,
    baseline_station,
    changes_left,
    prepare_station,
    probe_station,
    trial_station,
)
from flows.compression.wording import best_recovered_in_words, best_trial_in_words, latency_in_words
from pipeline.experience import Trial
from pipeline.policy.base import Change, PolicyContext
from pipeline.progress import reporter
from pipeline.result import RunResult, TargetResult
from pipeline.search import label_of
from pipeline.selection import Yardstick, next_to_recover, to_rehearse
from pipeline.target import Target


@task(name="prepare", task_run_name="prepare", cache_policy=NO_CACHE, persist_result=False)
def prepare(job: CompressJob, folder: Path) -> Session:
    """Load data and model, trace the graph, open the run's books."""
    session = prepare_station(job, folder)
    graph = session.workbench.graph
    get_run_logger().info(
        "%s: %d units, %d removable blocks, %.1f M MACs, %d parameters",
        job.model, len(graph.units), len(graph.blocks), graph.macs / 1e6, graph.parameters,
    )  # fmt: skip
    return session


@task(name="baseline", task_run_name="baseline", cache_policy=NO_CACHE, persist_result=False)
def baseline(session: Session) -> PolicyContext:
    """Judge the original and measure its plain INT8 export on every target."""
    context = baseline_station(session)
    latency = latency_in_words(context.base_latency_ms)
    get_run_logger().info("float %.2f; plain INT8 %s", context.float_accuracy, latency)
    return context


@task(name="probe", task_run_name="probe {label}", cache_policy=NO_CACHE, persist_result=False)
def probe(session: Session, change: Change, label: str) -> None:
    """Measure what one single change costs and gives."""
    effect = probe_station(session, change)
    get_run_logger().info("%s: %.2f, %s", label, effect.accuracy, latency_in_words(effect.latency_ms))


@task(name="trial", task_run_name="trial {number}", cache_policy=NO_CACHE, persist_result=False)
def trial(session: Session, context: PolicyContext, number: int) -> Trial | None:
    """Ask the policy for a plan, build it, judge it, measure it."""
    done = trial_station(session, context, number)
    if done is not None:
        outcome = latency_in_words(done.latency_ms) if done.failure is None else done.failure.message
        get_run_logger().info("trial %d: %.2f before recovery, %s", number, done.accuracy or 0.0, outcome)
    return done


@task(name="rehearse", task_run_name="rehearse {found.number}", cache_policy=NO_CACHE, persist_result=False)
def rehearse(session: Session, found: Trial) -> Trial:
    """Recover one plan for a short while, to see how well it recovers."""
    done = rehearse_station(session, found)
    get_run_logger().info("trial %d: rehearsed to %.2f", done.number, done.accuracy_rehearsed or 0.0)
    return done


@task(name="recover", task_run_name="recover {label}", cache_policy=NO_CACHE, persist_result=False)
def recover(session: Session, found: Trial, target: str, label: str) -> Trial:
    """Fine-tune one plan and judge its INT8 file on the search split."""
    done = recover_station(session, found, target)
    get_run_logger().info("%s: recovered to %.2f", label, done.accuracy_recovered or 0.0)
    return done


@task(name="prove", task_run_name="prove on {target.name}", cache_policy=NO_CACHE, persist_result=False)
def prove(session: Session, yardstick: Yardstick, target: Target) -> TargetResult:
    """Test split, full measurement and interleaved comparison of float, plain INT8 and chosen."""
    with session.timed("proof"):
        found = prove_target(session, yardstick, target, session.test())
    get_run_logger().info("%s: %s", target.name, "; ".join(found.misses) or "budget met")
    return found


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(session: Session, targets: dict[str, TargetResult]) -> RunResult:
    """Write result.json and report.html."""
    return conclude(session, targets, reporter().notes)


@task(name="release", task_run_name="release", cache_policy=NO_CACHE, persist_result=False)
def release(folder: Path) -> None:
    """Put the files of a run that met its budget where the fleet benchmark finds them."""
    get_run_logger().info("released: %s", ", ".join(release_station(folder)) or "nothing, see the notes")


@flow(name="compress", flow_run_name="{run_id}", validate_parameters=False)
def compress_flow(job: CompressJob, folder: str, run_id: str) -> RunResult:
    """Compress one model for its targets within its budget.

    Args:
        job: what is asked for.
        folder: the run's folder, locked by the caller; finished work in it is not done again.
        run_id: the folder's name, which names the flow run.
    """
    place = Path(folder)
    with published(job, place) as publication:
        result = _compress(job, place)
        if result.budget_met:
            release(place)
        publication.conclude(result, place)
    return result


def _compress(job: CompressJob, folder: Path) -> RunResult:
    """The run from its first stage to its last."""
    watch = reporter()
    watch.stage("prepare", 2)
    session = prepare(job, folder)
    context = baseline(session)
    _search(session, context, job)
    yardstick = session.yardstick(context)
    _rehearse_some(session, yardstick)
    decided: set[int] = set()
    for target in session.present:
        _recover_for(session, yardstick, target.name, decided)
    targets = {}
    for target in session.present:
        watch.stage(f"prove on {target.name}", PROOF_STEPS)
        try:
            targets[target.name] = prove(session, yardstick, target)
        except UnreachableError as error:
            session.bench.set_aside(target, error)
    for name, reason in session.bench.gone.items():
        watch.note(f"{name} is set aside: {reason}")
    watch.stage("report", 1)
    result: RunResult = report(session, targets)
    return result


def _search(session: Session, context: PolicyContext, job: CompressJob) -> None:
    """The first trial at once, then the probes the policy learns from, then the other trials."""
    watch = reporter()
    if not session.trials:
        watch.stage("first trial", 1)
        watch.advance(0, f"trial 1 of {job.trials}: to see that everything works")
        _try(session, context, 1)
    if job.scheduler is not None:
        _search_on_cluster(session, context, job.scheduler)
        return
    changes = changes_left(session, context)
    if changes:
        watch.stage("probes", len(changes))
    for index, change in enumerate(changes):
        watch.advance(index, f"{label_of(change)} ({index + 1} of {len(changes)})")
        probe(session, change, label_of(change))
    session.keep_task(context)
    context = session.told(context)
    watch.stage("trials", job.trials)
    first = 1 if job.policy in POLICIES_THAT_TRAIN else 2
    for number in range(first, job.trials + 1):
        watch.best(best_trial_in_words(session.trials, context))
        watch.advance(number - 1, f"trial {number} of {job.trials}")
        if _try(session, context, number) is None:
            watch.note(f"{job.policy} has no further plan to propose: {number - 1} trials were made")
            break
    watch.best(best_trial_in_words(session.trials, context))


def _try(session: Session, context: PolicyContext, number: int) -> Trial | None:
    """One trial, recovered at once where the policy goes by what training leaves."""
    found: Trial | None = trial(session, context, number)
    trains = session.job.policy in POLICIES_THAT_TRAIN and session.job.recovery_epochs > 0
    if found is None or found.failure is not None or not trains or session.is_recovered(number):
        return found
    watch, target = reporter(), session.present[0].name
    watch.stage(f"train trial {number}", 1.0)
    done: Trial = recover(session, found, target, f"trial {number} for {target}")
    watch.stage("trials", session.job.trials)
    return done


def _search_on_cluster(session: Session, context: PolicyContext, scheduler: str) -> None:
    """As `_search`, from the probes on, with candidates made by a Dask cluster."""
    watch, job = reporter(), session.job
    for known in session.trials:
        # What a board that was gone has not measured is measured now.
        trial(session, context, known.number)
    with Cluster(scheduler, source_of(session)) as cluster:
        changes = changes_left(session, context)
        if changes:
            watch.stage("probes", len(changes))
            probe_all(session, cluster, changes)
        session.keep_task(context)
        context = session.told(context)
        watch.stage("trials", job.trials)
        while len(session.trials) < job.trials:
            watch.best(best_trial_in_words(session.trials, context))
            present = replace(context, targets=session.present)
            if not try_batch(session, cluster, present, job.trials - len(session.trials)):
                watch.note(f"{job.policy} has no further plan: {len(session.trials)} trials were made")
                break
    watch.best(best_trial_in_words(session.trials, context))


def _rehearse_some(session: Session, yardstick: Yardstick) -> None:
    """Rehearse the trials among which the recoveries will have to choose."""
    job, watch = session.job, reporter()
    if job.recovery_epochs <= 0 or job.recoveries == 0 or job.policy in POLICIES_THAT_TRAIN:
        return
    names = [target.name for target in session.present]
    chosen = to_rehearse(session.trials, names, yardstick, job.budget.max_drop, job.rehearsals)
    if len(chosen) < 2:
        return
    for index, found in enumerate(chosen):
        watch.stage(f"rehearse trial {found.number}, {index + 1} of {len(chosen)}", 1.0)
        if found.accuracy_rehearsed is None:
            rehearse(session, found)


def _recover_for(session: Session, yardstick: Yardstick, target: str, decided: set[int]) -> None:
    """Recover what promises most for this target, as often as the job allows.

    A resumed run takes its decisions again from what was known at each of them, so it ends where it would
    have ended at one go; `decided` are the trials whose recovery is known by now.
    """
    job = session.job
    trained = job.policy in POLICIES_THAT_TRAIN
    most = job.recoveries if job.recovery_epochs > 0 and not trained else 0
    # A plan that was given is made a file of in any case, after no epoch at all if that is asked for.
    for attempt in range(1 if job.plan is not None else most):
        found = next_to_recover(session.trials_known(decided), target, yardstick, job.budget.max_drop)
        if found is None:
            return
        decided.add(found.number)
        if session.is_recovered(found.number):
            continue
        label = f"trial {found.number} for {target}"
        reporter().stage(f"recover {label}, {attempt + 1} of at most {job.recoveries}", 1.0)
        recover(session, found, target, label)
        reporter().best(best_recovered_in_words(session.trials, target, yardstick, job.budget.max_drop))
