from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.base import Split
from pipeline.data.splits import carve, fingerprint, stratified_indices
from pipeline.errors import DataError


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0, 100),
)
def test_a_split_is_exact_disjoint_and_stratified(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    held_out = min(max(1, round(share * len(labels))), len(labels) - 1)
    kept, held = stratified_indices(labels, held_out, seed)
    assert len(held) == held_out
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        # A class may be off by its own rounding and by what the other classes' rounding leaves.
        assert abs((labels[held] == label).sum() - held_out * count / len(labels)) <= 1 + len(counts) / 2


def test_the_seed_chooses_the_samples_and_the_fingerprint_tells() -> None:
    full = Split(np.arange(100)[:, None], np.random.default_rng(3).integers(0, 4, 100))
    first, again, other = carve(full, 20, 0), carve(full, 20, 0), carve(full, 20, 1)
    assert np.array_equal(first[1].x, again[1].x)
    assert not np.array_equal(first[1].x, other[1].x)
    assert fingerprint("a", *first) == fingerprint("a", *again)
    assert len({fingerprint("a", *first), fingerprint("a", *other), fingerprint("b", *first)}) == 3


@pytest.mark.parametrize("held_out", [0, 10, 11])
def test_a_split_leaves_something_on_both_sides(held_out: int) -> None:
    with pytest.raises(DataError, match="of 10 samples"):
        stratified_indices(np.zeros(10, int), held_out, 0)
