"""Plans as rows of small whole numbers, so that thousands of them fit into one array.

A plan is one option a position. Positions stand in forward order: each removable block before the units
inside it, each unit once. Option 0 leaves a position as it is; higher options cut more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from device_bench.errors import BadInputError
from pipeline.plan import CompressionPlan
from pipeline.space import PlanSpace

Options = NDArray[np.int16]


@dataclass(frozen=True)
class Position:
    """One decision of a plan.

    `keeps`: what each option keeps of the width, descending, the first 1; for a block (1, 0).
    `inside`: the index of the block's position that this unit leaves with, or −1.
    """

    name: str
    is_block: bool
    keeps: tuple[float, ...]
    inside: int = -1


@dataclass(frozen=True)
class PlanCodec:
    """Translates between plans of a space and rows of options, int16 [positions]."""

    space: PlanSpace

    @cached_property
    def positions(self) -> tuple[Position, ...]:
        """The decisions in forward order."""
        order = {layer.name: place for place, layer in enumerate(self.space.graph.layers)}
        first: list[tuple[int, int, str]] = []
        for block in self.space.graph.blocks:
            if block.name in self.space.removable:
                first.append((min((order[n] for n in block.layers if n in order), default=0), 0, block.name))
        for unit in self.space.graph.units:
            if len(self.space.choices.get(unit.name, ())) > 1:
                first.append((min((order[n] for n in unit.layers if n in order), default=0), 1, unit.name))
        first.sort()
        places = {name: place for place, (_, kind, name) in enumerate(first) if kind == 0}
        home = {unit: places[b.name] for b in self.space.graph.blocks if b.name in places for unit in b.units}
        return tuple(
            Position(name, True, (1.0, 0.0))
            if kind == 0
            else Position(name, False, tuple(reversed(self.space.choices[name])), home.get(name, -1))
            for _, kind, name in first
        )

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many options each position has, int64 [positions]."""
        return np.array([len(position.keeps) for position in self.positions], dtype=np.int64)

    @cached_property
    def keeps(self) -> NDArray[np.float64]:
        """What each option keeps, float64 [positions, most options]; NaN where there is no such option."""
        table = np.full((len(self.positions), int(self.counts.max(initial=1))), np.nan)
        for place, position in enumerate(self.positions):
            table[place, : len(position.keeps)] = position.keeps
        return table

    @cached_property
    def inside(self) -> NDArray[np.int64]:
        """For each position the block position that it leaves with, or −1; int64 [positions]."""
        return np.array([position.inside for position in self.positions], dtype=np.int64)

    def encode(self, plan: CompressionPlan) -> Options:
        """The row of a plan of this space.

        Raises:
            BadInputError: the plan is not one of this space.
        """
        row = np.zeros(len(self.positions), dtype=np.int16)
        removed = set(plan.removed)
        keep = {name: choice.keep_ratio for name, choice in plan.units.items() if choice.keep_ratio < 1.0}
        for place, position in enumerate(self.positions):
            if position.is_block:
                row[place] = position.name in removed
                removed.discard(position.name)
            elif position.name in keep:
                wanted = keep.pop(position.name)
                width = self.space.graph.unit_by_name[position.name].width_at(wanted)
                allowed = self.space.widths[position.name][::-1]
                if width not in allowed:
                    raise BadInputError(
                        f"plan keeps {wanted:.4f} of {position.name}; allowed: "
                        f"{', '.join(f'{option:.4f}' for option in position.keeps)}"
                    )
                row[place] = allowed.index(width)
        if keep or removed:
            raise BadInputError(
                f"plan changes {', '.join([*keep, *removed])}, which the space does not offer"
            )
        return row

    def decode(self, row: Sequence[int] | Options) -> CompressionPlan:
        """The plan in normal form that is nearest to a row: links mended, units of removed blocks left out.

        Raises:
            BadInputError: a row of another length, or an option that a position does not have.
        """
        if len(row) != len(self.positions) or any(
            not 0 <= int(option) < len(position.keeps)
            for option, position in zip(row, self.positions, strict=True)
        ):
            raise BadInputError(
                f"a plan of this space is {len(self.positions)} options below {self.counts.tolist()}; "
                f"got {list(map(int, row))}"
            )
        chosen = list(zip(self.positions, row, strict=True))
        removed = [position.name for position, option in chosen if position.is_block and option]
        keep = {p.name: p.keeps[int(option)] for p, option in chosen if not p.is_block and option}
        return self.space.plan(keep, removed)

    def keep_of(self, rows: Options) -> NDArray[np.float64]:
        """What rows [n, positions] keep, float64, same shape; 0 for removed blocks and what is inside."""
        kept = self.keeps[np.arange(len(self.positions)), np.asarray(rows, dtype=np.int64)]
        for place, home in enumerate(self.inside):
            if home >= 0:
                kept[:, place] = np.where(kept[:, home] == 0.0, 0.0, kept[:, place])
        return kept

    def normal(self, rows: Options) -> Options:
        """Rows [n, positions] as their plans in normal form encode them."""
        return np.stack([self.encode(self.decode(row)) for row in rows]) if len(rows) else np.asarray(rows)
