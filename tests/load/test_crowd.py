"""200 clients at once: no measurement is lost, doubled or run beside another, and nobody is left in doubt."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from crowd import Fate, crowd, stretches
from live_agent import LiveAgent, assert_measures, running

from device_bench.protocol import Measurement

CLIENTS = 200
# Children find the runtime that logs its runs; TFLite files go to it.
FAKES = Path(__file__).parents[1] / "device_bench"
PRELUDE = """
from device_bench.protocol import RuntimeName
from device_bench.runtimes import MODULES
MODULES[RuntimeName.LITERT] = "faulty_runtime"
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[LiveAgent]:
    with running(tmp_path / "state", prelude=PRELUDE, PYTHONPATH=str(FAKES)) as live:
        yield live


def check(agent: LiveAgent, fates: list[Fate], logs: Path) -> None:
    """Every client was served or told when to come back; every job was run once and alone."""
    assert len(fates) == CLIENTS
    assert not [words for fate in fates for words in fate.untold]
    assert all(fate.served or fate.told for fate in fates)
    assert [o for fate in fates for o in fate.outcomes if not isinstance(o, Measurement)] == []
    alone = []
    for number, fate in enumerate(fates):
        ran = stretches(logs / f"{number}.log")
        # One process and one outcome for each job, though half of them were asked for twice.
        assert len(ran) == fate.served, f"client {number}: {fate.served} outcomes, {len(ran)} processes"
        samples = sorted(len(o.samples_ns) for o in fate.outcomes if isinstance(o, Measurement))
        assert all(runs >= n for runs, n in zip(sorted(s.runs for s in ran), samples, strict=True))
        alone += ran
    alone.sort(key=lambda stretch: stretch.start)
    assert all(sooner.end < later.start for sooner, later in itertools.pairwise(alone))
    assert agent.process.poll() is None
    assert_measures(agent)


def test_a_crowd(agent: LiveAgent, tmp_path: Path) -> None:
    fates = crowd(agent, CLIENTS, 4.0, tmp_path)
    check(agent, fates, tmp_path)
    assert sum(fate.served for fate in fates) >= 1
    assert any(fate.told for fate in fates)


@pytest.mark.slow
def test_a_crowd_for_a_minute(agent: LiveAgent, tmp_path: Path) -> None:
    before = agent.resident_bytes()
    fates = crowd(agent, CLIENTS, 60.0, tmp_path)
    check(agent, fates, tmp_path)
    assert sum(fate.served for fate in fates) >= 33  # more than ever fit in line at once
    # 200 TLS connections and their requests, and no more of it than that.
    assert agent.resident_bytes() - before < 100 << 20
