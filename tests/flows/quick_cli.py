"""The `edgeloop` command with measurements that are short: what it measures is right, and coarse."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module

from device_bench.connection import Patience
from device_bench.protocol import Rounds, TimingPolicy

LOST_SECONDS = 5.0
SHORT = {"warmup_seconds": 0.0, "min_samples": 8, "min_seconds": 0.02, "max_seconds": 5.0}


def shorten() -> None:
    """Set the timing that the exporters' modules use."""
    candidates, proof = import_module("exporters.candidates"), import_module("exporters.proof")
    candidates.CANDIDATE_TIMING = candidates.PROFILE_TIMING = TimingPolicy(**SHORT)
    proof.PROOF_TIMING = TimingPolicy(**SHORT)
    proof.PROOF_ROUNDS = Rounds(count=3, seconds=0.02)


def shorten_visits() -> None:
    """The same for the fleet benchmark, with a few rounds more: its figures are judged."""
    visit, benchmark = import_module("pipeline.fleet.visit"), import_module("flows.fleet.benchmark")
    visit.TIMING = TimingPolicy(**SHORT)
    visit.ROUNDS = Rounds(count=8, seconds=0.02)
    benchmark.LOST_SECONDS = LOST_SECONDS


if __name__ == "__main__":
    # A board that went away is waited for as long as a test can wait.
    import_module("device_bench.connection").Patience = partial(Patience, lost_seconds=LOST_SECONDS)
    if "compress" in sys.argv:
        shorten()
    if "fleet" in sys.argv:
        shorten_visits()
    from flows.cli import main

    main()
