from __future__ import annotations

import pytest

from pipeline.errors import ModelError
from pipeline.keras_layout import channel_order


@pytest.mark.parametrize(
    ("taken", "sample", "order"),
    [
        ((8, 8, 1), (1, 8, 8), (0, 2, 3, 1)),
        ((None, None, 3), (3, 32, 48), (0, 2, 3, 1)),
        # Both fit: pictures are channels last in Keras.
        ((3, 3, 3), (3, 3, 3), (0, 2, 3, 1)),
        ((1, 8, 8), (1, 8, 8), None),
        ((40, 16), (40, 16), None),
        ((40, 16), (16, 40), (0, 2, 1)),
        ((16, 16), (16, 16), None),
        ((10,), (10,), None),
    ],
)
def test_samples_are_permuted_where_they_must_be(
    taken: tuple[int | None, ...], sample: tuple[int, ...], order: tuple[int, ...] | None
) -> None:
    assert channel_order("net.keras", taken, sample) == order


@pytest.mark.parametrize("taken", [(28, 28, 1), (64,), (8, 8)])
def test_samples_of_another_shape_are_refused(taken: tuple[int | None, ...]) -> None:
    with pytest.raises(
        ModelError, match=r"net.keras takes samples of shape \[.*the data's are \[1, 8, 8\], or \[8, 8, 1\]"
    ):
        channel_order("net.keras", taken, (1, 8, 8))
