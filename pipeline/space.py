"""Which plans a policy may propose for one model: widths that kernels like, and blocks that may go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, lcm, prod

import numpy as np

from device_bench.errors import BadInputError
from pipeline.graph import ModelGraph, Unit
from pipeline.plan import CompressionPlan, UnitChoice

# Units too narrow for the target's own step still go in steps that vector registers like.
FINE_STEP = 4


@dataclass(frozen=True)
class PlanSpace:
    """All plans in normal form: allowed widths only, linked widths that fit, nothing inside a removed block.

    Args:
        graph: the original model.
        widths: for each prunable unit the widths it may have, ascending; the last is its full width.
        removable: blocks that may go, in forward order; any subset of them is legal.
    """

    graph: ModelGraph
    widths: Mapping[str, tuple[int, ...]]
    removable: tuple[str, ...]

    @classmethod
    def of(cls, graph: ModelGraph, width_step: int, min_keep: float = 0.25) -> PlanSpace:
        """The space of `graph` for targets whose kernels work on `width_step` channels at once.

        Raises:
            BadInputError: `width_step` or `min_keep` is out of range.
        """
        if width_step < 1:
            raise BadInputError(f"width_step must be at least 1; got {width_step}")
        if not 0.0 < min_keep <= 1.0:
            raise BadInputError(f"min_keep must be above 0 and at most 1; got {min_keep}")
        widths = {unit.name: _widths(unit, width_step, min_keep) for unit in graph.units if unit.prunable}
        return cls(graph, widths, tuple(block.name for block in graph.blocks))

    @cached_property
    def choices(self) -> dict[str, tuple[float, ...]]:
        """For each prunable unit the keep ratios it may have, ascending, ending with 1."""
        units = self.graph.unit_by_name
        return {name: tuple(w / units[name].width for w in widths) for name, widths in self.widths.items()}

    def offering(self, plans: Iterable[CompressionPlan]) -> PlanSpace:
        """This space with the widths of those plans as well, which somebody wrote who knew of no steps."""
        widths = dict(self.widths)
        for plan in plans:
            for name in set(plan.units) & set(widths):
                width = self.graph.unit_by_name[name].width_at(plan.keep_ratio(name))
                widths[name] = tuple(sorted({*widths[name], width}))
        return replace(self, widths=widths)

    def contains(self, plan: CompressionPlan) -> bool:
        """True if `plan` is one of this space, in normal form; precision, recovery and seed are free."""
        keep = {name: choice.keep_ratio for name, choice in plan.units.items() if choice.keep_ratio < 1.0}
        if not set(plan.removed) <= set(self.removable) or not set(keep) <= set(self.widths):
            return False
        return _keep_of(self.plan(keep, plan.removed)) == keep

    def plan(self, keep: Mapping[str, float], removed: Iterable[str] = ()) -> CompressionPlan:
        """The plan of this space nearest to the given one.

        Units inside removed blocks are left out. Linked widths that do not fit each other are moved as little
        as possible, those named in `keep` below 1 last.

        Args:
            keep: keep ratio in (0, 1] by unit; a unit not named keeps its width.
            removed: blocks to remove.

        Raises:
            PlanError: a unit or block is unknown, or cannot be changed.
        """
        asked = CompressionPlan(
            units={name: UnitChoice(keep_ratio=ratio) for name, ratio in keep.items()}, removed=tuple(removed)
        )
        # Links are what is mended below; only names and prunability can be wrong by now.
        asked.checked_names(self.graph)
        units = self.graph.unit_by_name
        gone = self.inside(asked.removed)
        wanted = {name: ratio * units[name].width for name, ratio in keep.items() if ratio < 1.0}
        widths = self._nearest({name: width for name, width in wanted.items() if name not in gone}, gone)
        narrowed = {name: width for name, width in widths.items() if width < units[name].width}
        return CompressionPlan(
            units={
                name: UnitChoice(keep_ratio=w / units[name].width) for name, w in sorted(narrowed.items())
            },
            removed=asked.removed,
        ).checked(self.graph)

    def uniform(self, keep: float, removed: Iterable[str] = ()) -> CompressionPlan:
        """Every prunable unit at the allowed width nearest to `keep` of its own."""
        return self.plan(dict.fromkeys(self.widths, keep), removed)

    def sample(self, rng: np.random.Generator) -> CompressionPlan:
        """A plan at random; every plan can come up, light ones as often as heavy ones.

        How many units and blocks change is drawn first. Were each drawn on its own, nearly every plan of a
        deep model would change about half of everything.
        """
        block_rate, unit_rate = rng.random(2)
        removed = [name for name in self.removable if rng.random() < block_rate]
        keep = {
            name: float(rng.choice(ratios))
            for name, ratios in self.choices.items()
            if rng.random() < unit_rate
        }
        return self.plan(keep, removed)

    def size(self) -> int:
        """How many plans there are; an upper bound where linked units lie inside removable blocks."""
        free = {name: len(widths) for name, widths in self.widths.items() if name not in self._linked}
        inside = [[unit for unit in block.units if unit in free] for block in self.graph.blocks]
        outside = set(free) - {unit for units in inside for unit in units}
        return (
            prod(free[unit] for unit in outside)
            * prod(1 + prod(free[unit] for unit in units) for units in inside)
            * prod(
                sum(self._combinations(root, width) for width in self._allowed(root)) for root in self._roots
            )
        )

    def is_linked(self, unit: str) -> bool:
        """True if changing the unit's width may force another unit to change along."""
        return unit in self._linked

    def inside(self, removed: Iterable[str]) -> set[str]:
        """Units that leave with the blocks `removed`."""
        names = set(removed)
        return {unit for block in self.graph.blocks if block.name in names for unit in block.units}

    def _nearest(self, wanted: Mapping[str, float], gone: set[str]) -> dict[str, int]:
        """Allowed widths nearest to `wanted` (channels, by unit); a unit not wanted keeps its width."""
        widths = {name: _nearest_of(self.widths[name], width) for name, width in wanted.items()}
        for root in self._roots:
            tree = [name for name in self._tree(root) if name not in gone]
            if any(name in wanted for name in tree) and not self._fits(tree, widths):
                top = [name for name in tree if self.graph.unit_by_name[name].source not in tree]
                for name in top:
                    widths |= self._mended(name, None, wanted, gone)[1]
        return widths

    def _fits(self, tree: list[str], widths: Mapping[str, int]) -> bool:
        units = self.graph.unit_by_name
        for name in tree:
            source = units[name].source
            if source in tree:
                width, carried = (widths.get(n, units[n].width) for n in (name, source))
                if not units[name].width_fits(width, units[source], carried):
                    return False
        return True

    def _mended(
        self, name: str, source_width: int | None, wanted: Mapping[str, float], gone: set[str]
    ) -> tuple[tuple[float, float], dict[str, int]]:
        """The nearest legal widths of a unit and of all that carry it on, and how far off they are.

        The distance is (of wanted units, of others), each a sum of shares of the units' widths.
        """
        units = self.graph.unit_by_name
        best: tuple[tuple[float, float], dict[str, int]] | None = None
        for width in self._allowed(name):
            if source_width is not None:
                source = units[str(units[name].source)]
                if not units[name].width_fits(width, source, source_width):
                    continue
            distance = abs(width - wanted.get(name, units[name].width)) / units[name].width
            firm, loose = (distance, 0.0) if name in wanted else (0.0, distance)
            widths = {name: width}
            for child in self._carriers.get(name, ()):
                if child not in gone:
                    (more_firm, more_loose), below = self._mended(child, width, wanted, gone)
                    firm, loose = firm + more_firm, loose + more_loose
                    widths |= below
            if best is None or (firm, loose) < best[0]:
                best = (firm, loose), widths
        return best if best is not None else ((np.inf, np.inf), {})

    def _combinations(self, name: str, width: int) -> int:
        """How many legal width choices the units below `name` have when it has `width`."""
        units = self.graph.unit_by_name
        return prod(
            sum(
                self._combinations(child, wider)
                for wider in self._allowed(child)
                if units[child].width_fits(wider, units[name], width)
            )
            for child in self._carriers.get(name, ())
        )

    def _allowed(self, name: str) -> tuple[int, ...]:
        return self.widths.get(name, (self.graph.unit_by_name[name].width,))

    def _tree(self, root: str) -> list[str]:
        names = [root]
        for name in names:
            names.extend(self._carriers.get(name, ()))
        return names

    @cached_property
    def _linked(self) -> frozenset[str]:
        return frozenset(name for root in self._roots for name in self._tree(root))

    @cached_property
    def _carriers(self) -> dict[str, tuple[str, ...]]:
        """For each unit those that carry its channels on through a parameter-free shortcut."""
        carriers: dict[str, tuple[str, ...]] = {}
        for unit in self.graph.units:
            if unit.source is not None:
                carriers[unit.source] = (*carriers.get(unit.source, ()), unit.name)
        return carriers

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        """Units that others carry on and that carry none themselves."""
        units = self.graph.unit_by_name
        return tuple(name for name in self._carriers if units[name].source is None)


def _widths(unit: Unit, width_step: int, min_keep: float) -> tuple[int, ...]:
    steps = (lcm(unit.step, width_step), lcm(unit.step, min(FINE_STEP, width_step)), unit.step)
    step = next((step for step in steps if unit.width >= 2 * step), unit.step)
    least = max(unit.min_width, ceil(min_keep * unit.width))
    return (*(w for w in range(step, unit.width, step) if w >= least), unit.width)


def _nearest_of(widths: tuple[int, ...], width: float) -> int:
    """The allowed width nearest to `width`; the narrower of two that are equally near."""
    return min(widths, key=lambda allowed: (abs(allowed - width), allowed))


def _keep_of(plan: CompressionPlan) -> dict[str, float]:
    return {name: choice.keep_ratio for name, choice in plan.units.items()}
