"""`edgeloop bench --profile`: where an artifact's latency goes on each target."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from device_bench.profile_table import show_profile
from device_bench.protocol import BenchRequest, Failure, Profile
from flows.waiting import Waiting
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
    if as_json:
        sys.stdout.write(_as_json(found) + "\n")
    console = Console(stderr=as_json)
    for name, outcome in found.items():
        if isinstance(outcome, Failure):
            words = f"{name}: {outcome.kind.value}: {outcome.message}"
            console.print(words, style="red", markup=False, highlight=False)
        else:
            show_profile(f"{artifact.name} on {name}", outcome, console=console)
    return FAILED if any(isinstance(outcome, Failure) for outcome in found.values()) else DONE


def request_for(artifact: Path, target: Target) -> BenchRequest:
    """How the target runs the artifact."""
    return BenchRequest(
        path=str(artifact), runtime=target.runtime, accelerator=target.accelerator, threads=target.threads
    )


def _as_json(found: Mapping[str, Profile | Failure]) -> str:
    lines = [f'"{name}": {outcome.model_dump_json(indent=2)}' for name, outcome in found.items()]
    return "{" + ",\n".join(lines) + "}"
