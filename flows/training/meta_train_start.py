"""From `edgeloop meta-train` to a finished training: names and files checked, the screen, Prefect."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.errors import BadInputError
from device_bench.screen import wide_console
from flows.compression.start import prepare_prefect
from flows.interrupts import CtrlC
from flows.screen import Screen
from flows.training.standings_tables import show_standings
from pipeline.policy.policy_file import SHIPPED_FOLDER, SUFFIX
from pipeline.progress import current_reporter
from pipeline.tables.task_list import TaskList, read_task_list
from pipeline.tables.trainers import trainer_of

if TYPE_CHECKING:
    from flows.training.meta_train import MetaTrainOrder

HELD_OUT = "heldout.toml"


@dataclass(frozen=True)
class MetaTrainRequest:
    """The command line of `edgeloop meta-train`, as it was given."""

    tasks: Path
    learner: str
    out: Path
    held_out: Path | None = None
    seed: int = 0
    updates: int | None = None
    data_root: Path | None = None
    experience: str | None = None
    shipped: Path = SHIPPED_FOLDER
    retime: bool = False


@dataclass(frozen=True)
class CheckedLists:
    """The lists that a request names, read, and the policy file it asks for."""

    tasks: TaskList
    held_out: TaskList | None
    out: Path


def checked(request: MetaTrainRequest) -> CheckedLists:
    """Look up what the request names before anything heavy is loaded.

    Raises:
        BadInputError: an unknown learner, or a list that is missing or wrong.
    """
    trainer_of(request.learner)
    tasks = read_task_list(request.tasks)
    beside = request.tasks.parent / HELD_OUT
    held_path = request.held_out or (beside if beside.exists() and beside != request.tasks else None)
    held_out = read_task_list(held_path) if held_path is not None else None
    if request.updates is not None and request.updates < 1:
        raise BadInputError(f"updates must be at least 1; got {request.updates}")
    out = request.out
    if out.suffix != SUFFIX:
        out = out / f"{request.learner}{SUFFIX}"
    return CheckedLists(tasks, held_out, out)


def order_of(request: MetaTrainRequest, lists: CheckedLists) -> MetaTrainOrder:
    """The request as its flow takes it."""
    from flows.training.meta_train import MetaTrainOrder

    return MetaTrainOrder(
        request.learner,
        lists.tasks,
        lists.held_out,
        lists.out,
        request.seed,
        request.updates,
        request.data_root,
        request.experience,
        request.shipped,
        request.retime,
    )


def meta_train(request: MetaTrainRequest, *, as_json: bool) -> int:
    """Train, judge, promote or keep aside, and say why.

    Raises:
        BadInputError: an unknown learner, a list that is missing or wrong, or one without a table to record.
    """
    lists = checked(request)
    out = lists.out
    console = wide_console(stderr=as_json)
    with Screen(console, out.parent) as screen:
        token = current_reporter.set(screen)
        try:
            screen.stage("start", 1)
            screen.advance(0, "loading Prefect and torch")
            server = prepare_prefect()
            from flows.training.meta_train import meta_train_flow

            if server is not None:
                server.wait_ready()
            with CtrlC():
                result = meta_train_flow(order_of(request, lists), out.stem)
        except BadInputError:
            raise
        except BaseException as error:
            again = f"edgeloop meta-train {shlex.quote(str(request.tasks))} --policy {request.learner}"
            error.add_note(f"what was finished is kept; the same command goes on: {again} …")
            raise
        finally:
            current_reporter.reset(token)
    if as_json:
        told = {"policy": str(out), "decisions": [one.model_dump(mode="json") for one in result.decisions]}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    if result.standings is not None:
        show_standings(console, result.standings, each_task=False)
    for one in result.decisions:
        verb = "replaced" if one.promoted else "kept as it was"
        console.print(f"{one.shipped} {verb}: {one.reason}", highlight=False, soft_wrap=True)
    console.print(f"policy: {out}", highlight=False, soft_wrap=True)
    return 0
