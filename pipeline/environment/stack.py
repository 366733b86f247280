"""Sheets of several tasks in one set of arrays, so that lanes on different tasks are played together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.environment.sheet import EXPONENT, TaskSheet

Vector = NDArray[np.float64]


class SheetStack:
    """Arrays [tasks, positions, …] padded to the longest task; see `TaskSheet` for what they are.

    `weight`: damage ** EXPONENT. `ladder_saving_left`, `ladder_weight_left` [tasks, RUNGS, positions + 1]:
    sums over a position and all after it.
    """

    def __init__(self, sheets: Sequence[TaskSheet]) -> None:
        self.sheets = tuple(sheets)
        self.length = np.array([len(sheet.mask) for sheet in sheets])
        self.goals = np.stack([sheet.goals for sheet in sheets])
        self.limit = np.array([sheet.limit for sheet in sheets])

    @cached_property
    def position(self) -> NDArray[np.float32]:
        return np.stack([self._padded(sheet.position) for sheet in self.sheets])

    @cached_property
    def option(self) -> NDArray[np.float32]:
        return np.stack([self._padded(sheet.option, options=True) for sheet in self.sheets])

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        return np.stack([self._padded(sheet.mask, options=True) for sheet in self.sheets])

    @cached_property
    def saving(self) -> Vector:
        return np.stack([self._padded(sheet.saving, options=True) for sheet in self.sheets])

    @cached_property
    def weight(self) -> Vector:
        return np.stack([self._padded(sheet.damage**EXPONENT, options=True) for sheet in self.sheets])

    @cached_property
    def most(self) -> Vector:
        return np.stack([self._padded(sheet.most) for sheet in self.sheets])

    @cached_property
    def most_inside(self) -> Vector:
        return np.stack([self._padded(sheet.most_inside) for sheet in self.sheets])

    @cached_property
    def inside(self) -> NDArray[np.int64]:
        return np.stack([self._padded(sheet.codec.inside, fill=-1) for sheet in self.sheets])

    @cached_property
    def ladder(self) -> NDArray[np.int16]:
        return np.stack([self._padded(sheet.ladder.T).T for sheet in self.sheets])

    @cached_property
    def ladder_gain(self) -> Vector:
        return np.stack([sheet.ladder_gain for sheet in self.sheets])

    @cached_property
    def ladder_saving_left(self) -> Vector:
        return self._left(self.saving)

    @cached_property
    def ladder_weight_left(self) -> Vector:
        return self._left(self.weight)

    def _left(self, values: Vector) -> Vector:
        """Sums of the ladder's options over each position and all after it, with a last column of 0."""
        tasks, places = np.arange(len(values))[:, None, None], np.arange(values.shape[1])
        taken = values[tasks, places, self.ladder]
        sums = np.cumsum(taken[..., ::-1], axis=2)[..., ::-1]
        return np.concatenate([sums, np.zeros((*sums.shape[:2], 1))], axis=2)

    @property
    def options(self) -> int:
        """The most options a position has."""
        return max(int(sheet.mask.shape[1]) for sheet in self.sheets)

    def _padded(self, array: NDArray, options: bool = False, fill: int = 0) -> NDArray:  # type: ignore[type-arg]
        more = [(0, int(self.length.max()) - len(array))]
        if options:
            more.append((0, self.options - array.shape[1]))
        more += [(0, 0)] * (array.ndim - len(more))
        return np.pad(array, more, constant_values=fill)
