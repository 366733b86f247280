from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.tables.curve import Curve
from pipeline.tables.promotion import decide, promote, shipped_beside
from pipeline.tables.standings import Standings

NEW, OLD = Path("new/reptile.safetensors"), Path("shipped/reptile.safetensors")


def standings_of(gaps: list[float], policies: tuple[Path, ...] = (NEW, OLD)) -> Standings:
    """One task for each gap: how much the newer policy's gain is above the older one's."""
    curves = []
    for policy in policies:
        for number, gap in enumerate(gaps):
            gain = 0.8 + (gap if policy == NEW else 0.0)
            points = ((0.5, gain),) * 10
            curves += [Curve(str(policy), f"t{number}", seed, points) for seed in range(5)]
    return Standings(tuple(curves), {f"t{number}": 0.5 for number in range(len(gaps))}, 10)


def test_a_policy_that_is_surely_better_is_promoted() -> None:
    decision = decide(standings_of([0.01, 0.02, 0.01, 0.03, 0.01, 0.02]), NEW, OLD)
    assert decision.promoted
    assert decision.p == pytest.approx(1 / 64)
    assert decision.reason.startswith("better: its mean hypervolume after 5 and 10 trials differs by +0.0")


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        ([0.01, 0.02, 0.01], "not surely better"),
        ([0.1, -0.05, 0.1, -0.05, -0.02, 0.01], "not surely better"),
        ([-0.01] * 8, "not better"),
        ([0.0] * 8, "not better"),
    ],
)
def test_another_is_kept_aside_and_told_why(gaps: list[float], told: str) -> None:
    decision = decide(standings_of(gaps), NEW, OLD)
    assert not decision.promoted
    assert decision.reason.startswith(told)
    assert f"{len(gaps)} held-out tasks (p = " in decision.reason


def test_the_first_of_its_kind_is_promoted() -> None:
    decision = decide(standings_of([0.0], (NEW,)), NEW, OLD)
    assert (decision.promoted, decision.reason, decision.p) == (True, "none was shipped yet", None)


def test_only_what_was_promoted_is_replaced(tmp_path: Path) -> None:
    new, shipped = tmp_path / "reptile.safetensors", tmp_path / "shipped"
    shipped.mkdir()
    new.write_bytes(b"new")
    own, meta = shipped_beside("reptile", shipped)
    meta.write_bytes(b"old")
    better = decide(standings_of([0.01] * 6), NEW, OLD)
    worse = decide(standings_of([-0.01] * 6), NEW, OLD).model_copy(update={"shipped": meta.name})
    promote(new, [better, worse], shipped)
    assert (own.read_bytes(), meta.read_bytes(), new.read_bytes()) == (b"new", b"old", b"new")
