"""The search of a run whose candidates a cluster makes: all probes at once, trials a batch at a time.

The plans of one batch are proposed together, so a policy learns from them only when all are back: a run on a
cluster tries other plans than one alone does, and one that is resumed proposes what was left of a batch anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporters.remote_candidates import CandidateSource, measured
from flows.compression.bookkeeping import Session
from flows.compression.cluster import Cluster
from flows.compression.sources import at_hand
from flows.compression.stages import policy_of_job
from pipeline.policy.base import Change, Effect, PolicyContext
from pipeline.progress import reporter
from pipeline.search import TrialRequest, finished_trial, label_of, latencies, plan_of


def source_of(session: Session) -> CandidateSource:
    """What workers rebuild this run's workbench from."""
    task = session.workbench.task
    spec = at_hand(session.spec, session.folder.absolute())
    return CandidateSource(spec, session.job.data, session.job.data_root, session.job.seed, task.targets)


def probe_all(session: Session, cluster: Cluster, changes: Sequence[Change]) -> None:
    """Make every probe on the cluster, and keep each as it is measured."""
    plans = [plan_of(session.workbench.space, change) for change in changes]
    watch = reporter()
    watch.advance(0, f"{len(plans)} candidates on {cluster.workers} workers")
    with session.timed("probes"):
        for index, found in enumerate(cluster.prepared(plans, "probe")):
            watch.advance(index, label_of(changes[index]))
            outcomes = measured(session.bench, found)
            effect = Effect(accuracy=found.accuracy, latency_ms=latencies(outcomes))
            session.keep_probe(changes[index], effect, found.answers)


def try_batch(session: Session, cluster: Cluster, context: PolicyContext, most: int) -> int:
    """Propose, make and measure up to `most` plans, no more than there are workers; how many there were."""
    policy = policy_of_job(session.job)
    plans = policy.propose(context, session.trials, min(most, cluster.workers))
    watch, first = reporter(), len(session.trials) + 1
    with session.timed("trials"):
        for index, found in enumerate(cluster.prepared(plans, "search")):
            watch.advance(first + index - 1, f"trial {first + index}, made on the cluster")
            request = TrialRequest(first + index, plans[index], policy.name)
            outcomes = measured(session.bench, found)
            made = finished_trial(
                session.workbench, request, found.accuracy, outcomes, session.baselines
            ).model_copy(update={"seconds": found.seconds})
            session.keep_trial(made)
            if made.failure is not None:
                watch.note(f"trial {made.number} failed: {made.failure.kind}: {made.failure.message}")
    return len(plans)
