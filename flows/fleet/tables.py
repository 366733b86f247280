"""The fleet on the screen: its devices, and a round of its benchmark."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.fleet.wording import change_in_words, count_in_words, latest_in_words, since_in_words
from pipeline.fleet.history import Watched
from pipeline.fleet.regression import Figure, Finding, State
from pipeline.fleet.rounds import FleetRound
from pipeline.fleet.status import DeviceStatus

_COLOURS = {State.WORSE: "red", State.BETTER: "green", State.STEADY: "default", State.TOO_FEW: "yellow"}


def show_round(console: Console, result: FleetRound) -> None:
    """A row for each artifact on each device; then what got worse, and what was left out."""
    table = Table(title=f"round {escape(result.round_id)}", title_justify="left", title_style="bold")
    table.add_column("artifact", overflow="fold")
    table.add_column("device", overflow="fold")
    for figure in Figure:
        table.add_column(figure.value, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    by_watched: dict[Watched, dict[Figure, Finding]] = {}
    for one in result.findings:
        by_watched.setdefault(one.watched, {})[one.figure] = one
    for watched, found in by_watched.items():
        cells = [word for figure in Figure for word in _cells(found.get(figure))]
        table.add_row(escape(watched.release), escape(watched.device), *cells)
    if by_watched:
        console.print(table)
    for one in result.regressions:
        changed = "; ".join(one.changed) or "nothing that was told"
        text = (
            f"{one.watched.release} on {one.watched.device}: {one.figure.value} {change_in_words(one)} "
            f"since {since_in_words(one)}; changed in its conditions: {changed}"
        )
        console.print(f"[red]worse[/red] {escape(text)}", soft_wrap=True)
    for device in result.devices:
        if device.skipped is not None:
            console.print(
                f"[yellow]skipped[/yellow] {device.device}: {escape(device.skipped)}", soft_wrap=True
            )
        for name, why in device.failed.items():
            text = f"{name} on {device.device}: {why}"
            console.print(f"[yellow]not measured[/yellow] {escape(text)}", soft_wrap=True)
    worse = count_in_words(len(result.regressions)) if result.regressions else "nothing"
    console.print(f"{result.visits} visits: {worse} got worse", highlight=False)


def _cells(finding: Finding | None) -> tuple[str, str]:
    """The last visit's figure, and its state."""
    if finding is None:
        return "—", ""
    colour = _COLOURS[finding.state]
    return latest_in_words(finding), f"[{colour}]{finding.state.value}[/{colour}]"


def show_devices(console: Console, devices: list[DeviceStatus]) -> None:
    """A row for each device."""
    table = Table(title="fleet", title_justify="left", title_style="bold")
    for heading in ("device", "class", "answers", "processor", "runtimes", "watched", "worse", "last visit"):
        table.add_column(heading, overflow="fold")
    for one in devices:
        answers = "[green]yes[/green]" if one.problem is None else "[red]no[/red]"
        worse = f"[red]{len(one.worse)}[/red]" if one.worse else "0"
        table.add_row(
            escape(one.device),
            escape(one.device_class or "—"),
            answers,
            escape(one.processor),
            ", ".join(runtime.value for runtime in one.runtimes) or "none",
            str(one.watched),
            worse,
            "never" if one.last_visit is None else f"{one.last_visit:%Y-%m-%d %H:%M} UTC",
        )
    console.print(table)
    for one in devices:
        if one.problem is not None:
            console.print(f"[red]{escape(one.device)}[/red]: {escape(one.problem)}", soft_wrap=True)
        for words in one.worse:
            console.print(f"[red]worse[/red] {escape(words)}", soft_wrap=True)
