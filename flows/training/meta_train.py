"""The meta-training flow: complete the tables, load, train, evaluate on held-out tasks, promote or keep.

What must outlive a kill is on the disk: tables row by row, the training's checkpoint, finished curves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from device_bench.storage import write_whole
from exporters.table_recording import record
from exporters.table_timing import retime
from flows.training.policy_evaluate import default_folder
from pipeline.database import default_store
from pipeline.experience import ExperienceStore
from pipeline.policy.policy_file import SHIPPED_FOLDER, SUFFIX, PolicyFile, save_policy
from pipeline.policy.training import TrainSettings
from pipeline.progress import reporter
from pipeline.report.learning_curve import learning_curve_svg
from pipeline.tables.from_experience import tables_of
from pipeline.tables.order import TableOrder
from pipeline.tables.promotion import Decision, judged, promote
from pipeline.tables.standings import Standings
from pipeline.tables.table_task import TableTask
from pipeline.tables.task_list import TaskList, held_back, missing, table_sources, training_tasks, untimed
from pipeline.tables.trainers import trainer_of


@dataclass(frozen=True)
class MetaTrainOrder:
    """What to train.

    Args:
        learner: a key of `TRAINERS`.
        tasks: what to train on.
        held_out: what to judge by; None judges and promotes nothing.
        out: the policy file to write; its checkpoint, learning curve and verdict stand beside it.
        updates: of the outer loop; None for the learner's own number.
        experience: an experience store whose trials are trained on too; "" for the one that runs keep.
        shipped: folder of the policies that may be replaced.
        retime: take the latencies of all tables anew.
    """

    learner: str
    tasks: TaskList
    held_out: TaskList | None
    out: Path
    seed: int = 0
    updates: int | None = None
    data_root: Path | None = None
    experience: str | None = None
    shipped: Path = SHIPPED_FOLDER
    retime: bool = False

    @property
    def checkpoint(self) -> Path:
        """Where the training goes on from after a kill."""
        return self.out.with_name(f".{self.out.stem}.checkpoint{SUFFIX}")


@dataclass(frozen=True)
class MetaTrainResult:
    """What came of it: `standings` and `decisions` are empty where nothing was held out."""

    policy: Path
    standings: Standings | None
    decisions: tuple[Decision, ...]


@task(name="record", task_run_name="record {name}", cache_policy=NO_CACHE, persist_result=False)
def record_table(order: TableOrder, name: str, folder: Path, data_root: Path | None) -> None:
    """Record one table that is not there yet."""
    table = record(order, folder, data_root, lambda share, text: reporter().advance(share, text))
    get_run_logger().info("%s: %d rows", name, len(table.accuracy))


@task(name="time", task_run_name="time {name}", cache_policy=NO_CACHE, persist_result=False)
def time_table(path: Path, name: str, settings: tuple[str, ...]) -> None:
    """Time the plans of one table in settings that it lacks, or anew."""
    retime(path, settings, lambda share, text: reporter().advance(share, text))
    get_run_logger().info("%s: timed on %s", name, ", ".join(settings))


@task(name="load", task_run_name="load tables", cache_policy=NO_CACHE, persist_result=False)
def load_tasks(order: MetaTrainOrder) -> list[TableTask]:
    """The tasks to train on, those of the experience store among them where asked."""
    tasks = training_tasks(order.tasks)
    return tasks if order.experience is None else [*tasks, *_from_experience(order)]


@task(name="train", task_run_name="train {learner}", cache_policy=NO_CACHE, persist_result=False)
def train_policy(learner: str, tasks: list[TableTask], order: MetaTrainOrder) -> PolicyFile:
    """Train, from the checkpoint where there is one, and write the policy with its learning curve."""
    policy = trainer_of(learner)(
        tasks,
        TrainSettings(order.updates),
        order.seed,
        order.checkpoint,
        lambda share, text: reporter().advance(share, text),
    )
    save_policy(order.out, policy)
    _write_learning_curve(order.out, policy)
    return policy


@task(name="evaluate", task_run_name="evaluate {learner}", cache_policy=NO_CACHE, persist_result=False)
def evaluate(learner: str, order: MetaTrainOrder, held_out: TaskList) -> MetaTrainResult:
    """Play the held-out tasks against the shipped policies, and decide."""
    watch = reporter()

    def tell(done: int, total: int, last: str) -> None:
        watch.advance(done / max(1, total), last)

    standings, decisions = judged(
        order.out, table_sources(held_out), default_folder(), tell, shipped=order.shipped
    )
    for decision in decisions:
        get_run_logger().info("%s: %s", decision.shipped, decision.reason)
    return MetaTrainResult(order.out, standings, decisions)


@task(name="promote", task_run_name="promote or keep", cache_policy=NO_CACHE, persist_result=False)
def promote_or_keep(result: MetaTrainResult, order: MetaTrainOrder) -> None:
    """Replace the shipped policies that the new one surely beats, and write the verdict beside it."""
    promote(order.out, result.decisions, order.shipped)
    told = {"decisions": [decision.model_dump(mode="json") for decision in result.decisions]}
    if result.standings is not None:
        told |= result.standings.to_json()
    write_whole(order.out.with_suffix(".verdict.json"), json.dumps(told, indent=1).encode() + b"\n")


@flow(name="meta-train", flow_run_name="meta-train {label}", validate_parameters=False)
def meta_train_flow(order: MetaTrainOrder, label: str) -> MetaTrainResult:
    """Train one policy over recorded tasks and judge it on others.

    Args:
        label: names the flow run.
    """
    watch = reporter()
    lists = [order.tasks, *([order.held_out] if order.held_out is not None else [])]
    there = untimed(lists, anew=order.retime)
    for tables in lists:
        for one in missing(tables):
            watch.stage(f"record {one.name}", 1.0)
            record_table(one, one.name, Path(tables.tables), order.data_root)
    for path, settings in (there | untimed(lists)).items():
        watch.stage(f"time {path.stem}", 1.0)
        time_table(path, path.stem, settings)
    watch.stage("load tables", 1.0)
    tasks = load_tasks(order)
    watch.stage(f"train {order.learner} on {len(tasks)} tasks", 1.0)
    train_policy(order.learner, tasks, order)
    result = MetaTrainResult(order.out, None, ())
    if order.held_out is None:
        watch.note("no held-out tasks are given: the policy is kept aside, and nothing is replaced")
    else:
        watch.stage("evaluate on held-out tasks", 1.0)
        result = evaluate(order.learner, order, order.held_out)
        watch.stage("promote or keep aside", 1.0)
        promote_or_keep(result, order)
    order.checkpoint.unlink(missing_ok=True)
    return result


def _from_experience(order: MetaTrainOrder) -> list[TableTask]:
    where = order.experience or default_store()
    with ExperienceStore(where) as store:
        held = held_back(order.held_out or order.tasks, order.tasks)
        found = tables_of(store.entries(), store.tasks(), held)
    watch = reporter()
    for name, reason in found.left_out.items():
        watch.note(f"experience of {name} is left out: {reason}")
    tasks = [TableTask.of(table, setting) for table in found.tables for setting in table.header.settings]
    watch.note(f"the experience store {where} adds {len(tasks)} tasks")
    return tasks


def _write_learning_curve(path: Path, policy: PolicyFile) -> None:
    """The training's figures beside the policy, as JSON and as a plot."""
    training = policy.settings.get("training", {})
    for name, what in (("losses", "loss"), ("rewards", "reward")):
        figures = training.get(name)
        if figures:
            content = {"learner": policy.learner, "updates": training.get("updates"), name: figures}
            write_whole(path.with_suffix(".learning.json"), json.dumps(content, indent=1).encode() + b"\n")
            svg = learning_curve_svg(figures, int(training.get("updates") or len(figures)), what)
            write_whole(path.with_suffix(".learning.svg"), svg.encode())
