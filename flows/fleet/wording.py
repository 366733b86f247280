"""A round of the fleet benchmark in words, for Prefect's pages and for the screen."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.fleet.regression import Figure, Finding
from pipeline.fleet.rounds import FleetRound


def finding_rows(findings: Sequence[Finding]) -> list[dict[str, object]]:
    """A row for each figure, as Prefect's table artifact takes them."""
    return [
        {
            "artifact": finding.watched.release,
            "device": finding.watched.device,
            "figure": finding.figure.value,
            "state": finding.state.value,
            "last": latest_in_words(finding),
            "change": change_in_words(finding),
            "since": since_in_words(finding),
            "visits before": finding.visits,
        }
        for finding in findings
    ]


def markdown_of(result: FleetRound) -> str:
    """Which artifact, device and figure got worse, since when, and what changed with it."""
    lines = [f"# Fleet benchmark {result.round_id}", ""]
    skipped = [one for one in result.devices if one.skipped is not None]
    lines += [f"{result.visits} visits to {len(result.devices) - len(skipped)} devices."]
    for finding in result.regressions:
        watched = finding.watched
        lines += [
            "",
            f"## {watched.release} on {watched.device}: {finding.figure.value} is worse",
            "",
            f"- {change_in_words(finding)} against {finding.visits} visits before",
            f"- since {since_in_words(finding)}",
            f"- now {levels_in_words(finding)}",
            f"- file `{watched.sha256}`, {watched.runtime.value}, {watched.threads} threads",
            f"- changed in its conditions: {'; '.join(finding.changed) or 'nothing that was told'}",
            f"- if that is how it shall be: `edgeloop fleet accept {watched.release} {watched.device}`",
        ]
    if not result.regressions:
        lines += ["", "Nothing got worse."]
    if skipped:
        lines += ["", "## Skipped", ""]
        lines += [f"- {one.device}: {one.skipped}" for one in skipped]
    failed = [(one.device, name, why) for one in result.devices for name, why in one.failed.items()]
    if failed:
        lines += ["", "## Not measured", ""]
        lines += [f"- {name} on {device}: {why}" for device, name, why in failed]
    return "\n".join(lines) + "\n"


def regressions_in_words(result: FleetRound) -> str:
    """One line for a failed state."""
    told = [
        f"{one.watched.release} on {one.watched.device}: {one.figure.value} {change_in_words(one)} "
        f"since {since_in_words(one)}"
        for one in result.regressions
    ]
    return f"{count_in_words(len(told))} got worse: " + "; ".join(told)


def count_in_words(figures: int) -> str:
    """ "1 figure", "3 figures"."""
    return f"{figures} figure{'' if figures == 1 else 's'}"


def change_in_words(finding: Finding) -> str:
    """ "+15.2 % (+10.1 to +20.5)"; an em dash where nothing changed."""
    if finding.ratio is None or finding.low is None or finding.high is None:
        return "—"
    change, low, high = (100.0 * (value - 1.0) for value in (finding.ratio, finding.low, finding.high))
    return f"{change:+.1f} % ({low:+.1f} to {high:+.1f})"


def since_in_words(finding: Finding) -> str:
    """To the minute, in UTC."""
    return "—" if finding.since is None else f"{finding.since:%Y-%m-%d %H:%M} UTC"


def latest_in_words(finding: Finding) -> str:
    """The last visit's own figure."""
    if finding.figure is Figure.MEMORY:
        return f"{finding.latest / 2**20:.1f} MiB"
    return f"{finding.latest:.3f} ms"


def levels_in_words(finding: Finding) -> str:
    """The figure that is judged, now and before; an em dash where nothing changed."""
    if finding.now is None or finding.level is None:
        return "—"
    if finding.figure is Figure.MEMORY:
        return f"{finding.now / 2**20:.1f} MiB, before {finding.level / 2**20:.1f} MiB"
    return f"{finding.now:.3f} times the reference model's time, before {finding.level:.3f}"
