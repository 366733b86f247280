"""The screen of `edgeloop server up`: a head that says where things are, then a line for all that happens."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.deployments.pool import DeployedFlow, FlowRunLine, PoolState
from flows.deployments.revival import Revival
from flows.deployments.standing import Standing

COLOURS = {
    "RUNNING": "cyan",
    "COMPLETED": "green",
    "FAILED": "red",
    "CRASHED": "red",
    "CANCELLED": "yellow",
    "CANCELLING": "yellow",
}
HOW_TO_DEPLOY = "none yet: `prefect deploy --all` in a folder with a prefect.yaml"


class Announcements:
    """Says what changed since it last said something."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told: dict[str, str] | None = None
        self._deployed: dict[str, tuple[tuple[str, ...], ...]] | None = None
        self._pool = PoolState(is_paused=False, waiting=0)
        self._complaint = ""

    def head(self, standing: Standing, *, pool_is_new: bool) -> None:
        """Where things are."""
        table = Table.grid(padding=(0, 2))
        pages = standing.api_url.removesuffix("/api")
        table.add_row("Prefect's pages", escape(pages))
        table.add_row(
            "its API", escape(standing.api_url) + ("" if standing.own_server else ", not started here")
        )
        table.add_row("work pool", escape(standing.pool) + (", made now" if pool_is_new else ""))
        table.add_row("worker", escape(standing.worker))
        self._console.print(table, highlight=False)
        self._console.print("Ctrl-C ends all of it.", style="dim")

    def line(self, text: str, style: str = "") -> None:
        """Something happened now."""
        self._console.print(
            f"{datetime.now():%H:%M:%S}  {text}", style=style, highlight=False, markup=False, soft_wrap=True
        )

    def revival(self, revival: Revival) -> None:
        """A flow run was looked after."""
        self.line(f"{revival.name}: {revival.told}", "yellow")

    def runs(self, runs: Sequence[FlowRunLine]) -> None:
        """A line for each flow run whose state is another than before; at first, only for those at work."""
        first = self._told is None
        told = self._told or {}
        for run in runs:
            if told.get(run.flow_run_id) != run.state and (not first or run.kind in {"RUNNING", "PENDING"}):
                message = f": {run.message}" if run.message else ""
                text = f"{run.deployment}  {run.name}  {run.state}{message}"
                self.line(text, COLOURS.get(run.kind, ""))
        self._told = told | {run.flow_run_id: run.state for run in runs}

    def deployments(self, deployed: Sequence[DeployedFlow]) -> None:
        """The list of what is deployed, when it is another than before."""
        before, self._deployed = self._deployed, {one.name: (one.schedules, one.paused) for one in deployed}
        if not deployed and before is None:
            self.line(f"deployments: {HOW_TO_DEPLOY}")
        for one in deployed:
            if before is None or one.name not in before:
                self.line(f"deployed: {one.name}, {when(one)}")
            elif before[one.name] != (one.schedules, one.paused):
                self.line(f"changed: {one.name}, {when(one)}")

    def pool(self, state: PoolState) -> None:
        """That runs wait, or do no more."""
        before, self._pool = self._pool, state
        if state != before and (state.is_paused or state.waiting or before.is_paused):
            self.line(held_up(state), "yellow" if state.is_paused else "")

    def complaint(self, text: str) -> None:
        """Something is wrong with the telling; once, until it is something else."""
        if text and text != self._complaint:
            self.line(text, "yellow")
        self._complaint = text


def held_up(state: PoolState) -> str:
    """ "the work pool is paused: 2 runs wait", or how many wait for a place."""
    waiting = f"{state.waiting} {'run waits' if state.waiting == 1 else 'runs wait'}"
    if state.is_paused:
        return f"the work pool is paused (`prefect work-pool resume` goes on): {waiting}"
    return f"{waiting} for a place" if state.waiting else "the work pool takes runs; none waits"


def when(deployed: DeployedFlow) -> str:
    """ "by 0 1 * * * UTC, next run 2026-11-24 01:00:00 UTC", or that it runs when asked."""
    if not deployed.schedules:
        paused = f"; its schedule {' and '.join(deployed.paused)} is switched off" if deployed.paused else ""
        return f"runs when asked to{paused}"
    told = f"by {' and '.join(deployed.schedules)}"
    if deployed.next_run is None:
        return told
    return f"{told}, next run {deployed.next_run.astimezone():%Y-%m-%d %H:%M:%S %Z}"
