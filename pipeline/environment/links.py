"""Rows of options as their plans in normal form encode them, many at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipeline.tables.codec import Options, PlanCodec


@dataclass(frozen=True, eq=False)
class LinkedWidths:
    """Mends rows: units of removed blocks go back to 0, widths that a shortcut links are made to fit.

    `PlanCodec.normal` does the same row by row. Only what is linked has to be looked at for that, and its
    combinations are few: each is mended once.
    """

    codec: PlanCodec
    _mended: dict[bytes, Options] = field(default_factory=dict)

    def normal(self, rows: Options) -> Options:
        """Rows [n, positions] in normal form; what was given stays as it is."""
        rows = np.array(rows, dtype=np.int16)
        for place, home in enumerate(self.codec.inside):
            if home >= 0:
                rows[:, place] = np.where(rows[:, home] != 0, 0, rows[:, place])
        if len(self._linked):
            keys = np.ascontiguousarray(rows[:, self._looked_at])
            for number, key in enumerate(keys):
                rows[number, self._linked] = self._found(key)
        return rows

    def _found(self, key: Options) -> Options:
        found = self._mended.get(key.tobytes())
        if found is None:
            row = np.zeros(len(self.codec.positions), dtype=np.int16)
            row[self._looked_at] = key
            found = self.codec.encode(self.codec.decode(row))[self._linked]
            self._mended[key.tobytes()] = found
        return found

    @cached_property
    def _linked(self) -> np.ndarray:
        space = self.codec.space
        return np.array(
            [i for i, p in enumerate(self.codec.positions) if not p.is_block and space.is_linked(p.name)],
            dtype=np.int64,
        )

    @cached_property
    def _looked_at(self) -> np.ndarray:
        """Linked units, and the blocks that any of them leaves with."""
        homes = self.codec.inside[self._linked]
        return np.unique(np.concatenate([self._linked, homes[homes >= 0]]))
