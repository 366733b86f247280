"""A board that goes away in the middle of a search is set aside, and the search goes on with the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_believe_bench import MakeBelieveBench

from device_bench.errors import UnreachableError
from device_bench.protocol import Failure, FailureKind
from exporters import candidates
from exporters.candidates import ShapeBench
from pipeline.compressor import compress
from pipeline.plan import CompressionPlan, UnitChoice
from pipeline.target import LOCAL_TARGETS
from pipeline.tracing import trace
from pipeline.zoo import build

GONE = Failure(kind=FailureKind.UNREACHABLE, message="the board does not answer")
STAYS, LEAVES = "local-onnxruntime", "board-onnxruntime"


@pytest.fixture
def benches() -> dict[str, MakeBelieveBench]:
    """What is behind each target: the second one's board answers once."""
    return {STAYS: MakeBelieveBench(), LEAVES: MakeBelieveBench(outcomes=dict.fromkeys(range(2, 9), GONE))}


@pytest.fixture
def bench(
    benches: dict[str, MakeBelieveBench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ShapeBench:
    """A network on two targets of one format."""
    first = LOCAL_TARGETS[STAYS]
    second = first.model_copy(update={"name": LEAVES, "where": "https://127.0.0.1:1"})
    monkeypatch.setattr(candidates, "bench_for", lambda target: benches[target.name])
    module = build("cnn", (1, 8, 8), 10)
    graph = trace(module, (1, 8, 8))
    samples = np.random.default_rng(0).random((8, 1, 8, 8)).astype(np.float32)
    return ShapeBench(module.eval(), graph, (first, second), samples, tmp_path)


def narrower(bench: ShapeBench) -> CompressionPlan:
    """A plan of another shape than the whole model's."""
    return CompressionPlan(units={bench.graph.units[0].name: UnitChoice(keep_ratio=0.5)})


def test_the_others_go_on_without_it(bench: ShapeBench, benches: dict[str, MakeBelieveBench]) -> None:
    plan = narrower(bench)
    assert set(bench.measure(bench.original, CompressionPlan())) == {STAYS, LEAVES}
    assert bench.gone == {}

    cut = compress(bench.original, bench.graph, plan)
    assert set(bench.measure(cut, plan)) == {STAYS}
    assert bench.gone == {LEAVES: "the board does not answer"}
    assert [target.name for target in bench.present] == [STAYS]

    # It is not waited for again, not even for what was measured there before.
    asked = len(benches[LEAVES].requests)
    assert set(bench.measure(bench.original, CompressionPlan())) == {STAYS}
    assert len(benches[LEAVES].requests) == asked


def test_without_any_the_search_ends(bench: ShapeBench) -> None:
    bench.targets = bench.targets[1:]
    bench.measure(bench.original, CompressionPlan())
    plan = narrower(bench)
    with pytest.raises(UnreachableError, match="does not answer"):
        bench.measure(compress(bench.original, bench.graph, plan), plan)
