"""`edgeloop policy evaluate`: how fast a policy finds good plans on held-out tasks, as table and plot."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from device_bench.errors import BadInputError
from device_bench.screen import wide_console
from device_bench.storage import write_whole
from flows.training.standings_tables import played, show_standings
from pipeline.data.cache import cache_folder
from pipeline.report.curves import curves_svg
from pipeline.tables.contest import Contest
from pipeline.tables.task_list import missing, read_task_list, table_sources

# Beside the policy asked for: the strongest that need no training, and chance.
COMPARED = ("greedy", "knapsack", "random")


@dataclass(frozen=True)
class EvaluateOrder:
    """What to evaluate.

    Args:
        policy: a file that `edgeloop meta-train` wrote, or a name of `POLICIES`.
        tasks: a list of tasks whose tables are there.
        beside: policies to compare with.
        plot: an SVG file to write; None for none.
    """

    policy: str
    tasks: Path
    beside: tuple[str, ...] = COMPARED
    seeds: int = 5
    trials: int = 50
    jobs: int = 1
    plot: Path | None = None


def default_folder() -> Path:
    """Where curves are kept between evaluations."""
    return cache_folder() / "curves"


def evaluate_policy(order: EvaluateOrder, *, as_json: bool) -> int:
    """Run the contest, show it, and draw it.

    Raises:
        BadInputError: a file or a name that is not there, or tables that are not recorded yet.
    """
    tasks = read_task_list(order.tasks)
    absent = missing(tasks)
    if absent:
        names = ", ".join(one.name for one in absent)
        raise BadInputError(
            f"no tables of {names} in {tasks.tables}; record them with `edgeloop meta-train {order.tasks}`"
        )
    console = wide_console(stderr=as_json)
    policies = tuple(dict.fromkeys([order.policy, *order.beside]))
    contest = Contest(table_sources(tasks), policies, order.seeds, order.trials, default_folder())
    standings = played(contest, order.jobs, console)
    if as_json:
        sys.stdout.write(json.dumps(standings.to_json(), indent=2) + "\n")
    show_standings(console, standings, each_task=True)
    if order.plot is not None:
        write_whole(order.plot, curves_svg(standings).encode())
        console.print(f"plot: {order.plot}", highlight=False, soft_wrap=True)
    return 0
