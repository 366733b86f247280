"""How fast each policy finds good plans on models it has never seen.

    python benchmarks/policy.py                               # the project's held-out tables
    python benchmarks/policy.py --held-out mine.toml --trials 20   # your own models, built and measured

Prints the share of the best known hypervolume (accuracy against measured latency) after 1, 5, 10, 20, 50 and
200 trials for every held-out task and their mean, with intervals over seeds; whether a policy's first plan,
with nothing measured, is above the uniform plan of the same latency; what a plan found for one target is
worth on another; and how many evaluations each policy used, measurements of single changes included.

Without --held-out, tasks are recorded tables, and surrogates fitted to real outcomes answer at once. With it,
plans are built, judged and timed here. Either way curves and trials are kept, so a repeat costs nothing and a
killed benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from device_bench.errors import BadInputError, EdgeloopError
from device_bench.storage import write_whole
from exporters.held_out import held_out_sources
from exporters.workbench_task import WorkbenchSource
from flows.training.policy_evaluate import default_folder
from flows.training.standings_tables import played, show_standings
from pipeline.data.cache import cache_folder
from pipeline.policy import POLICIES, load_policy
from pipeline.report.curves import curves_svg
from pipeline.tables.claims import FirstPlan, Transfer, first_plan, mean_slower, probes_of, transfers
from pipeline.tables.contest import Contest, TableSource
from pipeline.tables.task_list import missing, read_task_list, table_sources
from pipeline.tables.trial_task import TrialTask

TASKS = Path(__file__).parents[1] / "policies" / "heldout.toml"
Sources = tuple[TableSource, ...] | tuple[WorkbenchSource, ...]


@dataclass(frozen=True)
class Extras:
    """What is printed beside the curve, by policy."""

    first_plans: dict[str, list[FirstPlan]]
    transfers: list[Transfer]
    transferred: str
    probes: dict[str, float]


def sources_of(given: argparse.Namespace) -> Sources:
    """The tasks, of which --tasks may name some."""
    if given.held_out is not None:
        root = Path(given.data_root) if given.data_root else None
        kept = cache_folder() / "held-out"
        sources: Sources = held_out_sources(given.held_out, kept, root, probed=not given.unprobed)
    else:
        tasks = read_task_list(given.list)
        absent = ", ".join(one.name for one in missing(tasks))
        if absent:
            raise BadInputError(f"no tables of {absent}; record them with `edgeloop meta-train {given.list}`")
        sources = table_sources(tasks, probed=not given.unprobed)
    if not given.tasks:
        return sources
    wanted = [word for word in given.tasks.split(",") if word]
    chosen = tuple(one for one in sources if any(word in name_of(one) for word in wanted))
    if not chosen:
        known = ", ".join(name_of(one) for one in sources)
        raise BadInputError(f"no task has {given.tasks} in its name; known: {known}")
    return chosen  # type: ignore[return-value]


def name_of(source: TableSource | WorkbenchSource) -> str:
    """Enough of a source to choose it by, without loading it."""
    if isinstance(source, WorkbenchSource):
        return source.task.name
    return f"{source.path.stem}/{source.setting}"


def policies_of(given: argparse.Namespace, console: Console) -> tuple[str, ...]:
    """Those asked for; else all that need no training or come trained with the package."""
    if given.policies:
        return tuple(dict.fromkeys(given.policies.split(",")))
    found = []
    for name in POLICIES:
        try:
            load_policy(name)
        except BadInputError as error:
            console.print(f"left out: {error}", style="yellow")
        else:
            found.append(name)
    return tuple(found)


def extras_of(
    sources: Sources, policies: tuple[str, ...], given: argparse.Namespace, console: Console
) -> Extras:
    """First plans and probes of every policy, and transfers of one."""
    first: dict[str, list[FirstPlan]] = {name: [] for name in policies}
    probes: dict[str, list[int]] = {name: [] for name in policies}
    probed: list[TrialTask] = []
    for source in sources:
        console.print(f"first plans on {name_of(source)}", style="dim")
        bare, told = replace(source, probed=False).load(), source.load()
        probed.append(told)
        for name in policies:
            policy = load_policy(name)
            found = [first_plan(policy, bare, seed) for seed in range(given.seeds)]
            first[name] += [one for one in found if one is not None]
            probes[name].append(probes_of(policy, told, bare))
    transferred = "meta" if "meta" in policies else policies[0]
    policy = load_policy(transferred)
    moved = [
        one for seed in range(given.seeds) for one in transfers(policy, probed, min(50, given.trials), seed)
    ]
    return Extras(first, moved, transferred, {n: sum(counts) / len(counts) for n, counts in probes.items()})


def show_extras(console: Console, extras: Extras, trials: int) -> None:
    """Three tables."""
    table = Table(
        "policy", "first plan above uniform's", "on tasks", title="nothing measured: the first plan"
    )
    for name, found in extras.first_plans.items():
        if found:
            share = sum(one.above for one in found) / len(found)
            table.add_row(name, f"{100 * share:.0f} %", str(len({one.task for one in found})))
    console.print(table)
    if extras.transfers:
        table = Table("found for", "run on", "slower than its own", title=f"plans of {extras.transferred}")
        for pair in sorted({(one.of, one.on) for one in extras.transfers}):
            slower = mean_slower([one for one in extras.transfers if (one.of, one.on) == pair])
            table.add_row(*pair, f"{100 * slower:+.1f} %")
        console.print(table)
    table = Table("policy", "single changes", f"evaluations for {trials} trials", title="evaluations a task")
    for name, probes in extras.probes.items():
        table.add_row(name, f"{probes:.1f}", f"{probes + trials:.1f}")
    console.print(table)


def to_json(extras: Extras) -> dict[str, object]:
    """The same as JSON values."""
    return {
        "first_plan": {
            name: {
                "share_above_uniform": sum(one.above for one in found) / len(found) if found else None,
                "plans": [asdict(one) for one in found],
            }
            for name, found in extras.first_plans.items()
        },
        "transfer": {
            "policy": extras.transferred,
            "pairs": [{**asdict(one), "slower": one.slower} for one in extras.transfers],
        },
        "probes": extras.probes,
    }


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--policies", help="names or .safetensors files, with commas between; default: all")
    parser.add_argument("--tasks", help="only tasks with one of these words in their names, commas between")
    parser.add_argument("--list", type=Path, default=TASKS, help="list of recorded tasks (.toml)")
    parser.add_argument("--held-out", type=Path, help="list of tasks to try for real (.toml)")
    parser.add_argument(
        "--data-root", help="folder of the data sets", default=os.environ.get("EDGELOOP_DATA")
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1, help="processes; always 1 where plans are timed")
    parser.add_argument("--unprobed", action="store_true", help="no policy is told effects of single changes")
    parser.add_argument("--curve-only", action="store_true", help="leave first plans and transfers out")
    parser.add_argument("--json", type=Path, help="write every seed's curve and all means to this file")
    parser.add_argument("--plot", type=Path, help="draw the mean curves to this file (.svg)")
    return parser.parse_args()


def main() -> int:
    """Run the contest and print it."""
    given = options()
    logging.basicConfig(level=logging.ERROR)
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    try:
        sources = sources_of(given)
        policies = policies_of(given, console)
        conditions = "unprobed" if given.unprobed else ""
        contest = Contest(sources, policies, given.seeds, given.trials, default_folder(), conditions)
        # Two at once would measure each other.
        jobs = 1 if given.held_out is not None else given.jobs
        standings = played(contest, jobs, console)
        extras = None if given.curve_only else extras_of(sources, policies, given, console)
    except EdgeloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show_standings(console, standings, each_task=True)
    if extras is not None:
        show_extras(console, extras, given.trials)
    if given.json is not None:
        content = standings.to_json() | (to_json(extras) if extras is not None else {})
        write_whole(given.json, json.dumps(content, indent=1).encode() + b"\n")
    if given.plot is not None:
        write_whole(given.plot, curves_svg(standings).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
