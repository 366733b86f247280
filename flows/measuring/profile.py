"""`edgeloop bench --profile`: where an artifact's latency goes on each target, by operators and by units."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from device_bench.profile_table import show_profile
from device_bench.protocol import BenchRequest, Failure, Profile
from device_bench.screen import wide_console
from exporters.metadata import read_metadata
from exporters.profile import OTHER, unit_shares
from flows.measuring.waiting import Waiting
from pipeline.errors import ExportError
from pipeline.target import Target
from pipeline.target_bench import bench_for

DONE, FAILED = 0, 3


def profile_artifact(artifact: Path, targets: list[Target], *, as_json: bool) -> int:
    """Show where the artifact's latency goes on each target.

    Args:
        targets: each reads the artifact.

    Returns:
        0 if every target told, 3 if one did not.
    """
    found: dict[str, Profile | Failure] = {}
    with Waiting(Console(stderr=True)) as waiting:
        for target in targets:
            waiting.begin(f"{artifact.name} on {target.name}, operator by operator")
            found[target.name] = bench_for(target, waiting.tell).profile(request_for(artifact, target))
    units = _units_in(artifact)
    shares = {
        name: unit_shares(outcome, units)
        for name, outcome in found.items()
        if units and isinstance(outcome, Profile)
    }
    if as_json:
        sys.stdout.write(_as_json(found, shares) + "\n")
    console = wide_console(stderr=as_json)
    for name, outcome in found.items():
        if isinstance(outcome, Failure):
            words = f"{name}: {outcome.kind.value}: {outcome.message}"
            console.print(words, style="red", markup=False, highlight=False)
        else:
            show_profile(f"{artifact.name} on {name}", outcome, console=console)
    if shares:
        _show_units(console, artifact, units, shares)
    return FAILED if any(isinstance(outcome, Failure) for outcome in found.values()) else DONE


def request_for(artifact: Path, target: Target) -> BenchRequest:
    """How the target runs the artifact."""
    return BenchRequest(
        path=str(artifact), runtime=target.runtime, accelerator=target.accelerator, threads=target.threads
    )


def _units_in(artifact: Path) -> dict[str, str]:
    """Layer → unit, as edgeloop wrote it into the file; nothing in files of others."""
    try:
        return read_metadata(artifact).units
    except ExportError:
        return {}


def _show_units(
    console: Console, artifact: Path, units: Mapping[str, str], shares: Mapping[str, Mapping[str, float]]
) -> None:
    """A line for each unit: its layers, and its share of the latency on each target."""
    table = Table(title=escape(f"{artifact.name}, unit by unit"), title_justify="left")
    table.add_column("unit")
    table.add_column("layers")
    for name in shares:
        table.add_column(escape(name), justify="right")
    for unit in (*dict.fromkeys(units.values()), OTHER):
        layers = ", ".join(layer for layer, owner in units.items() if owner == unit)
        table.add_row(
            escape(unit), escape(layers), *(f"{100 * told[unit]:.1f} %" for told in shares.values())
        )
    console.print(table)


def _as_json(found: Mapping[str, Profile | Failure], shares: Mapping[str, Mapping[str, float]]) -> str:
    """The outcomes by target; `unit_shares` besides what a profile holds, where the file tells its units."""
    tables = {
        name: outcome.model_dump(mode="json") | ({"unit_shares": shares[name]} if name in shares else {})
        for name, outcome in found.items()
    }
    return json.dumps(tables, indent=2)
