"""What a model is made of, as plans see it: units whose widths are coupled, and blocks that may go."""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from device_bench.protocol import Record


class Layer(Record):
    """One layer with weights. `in_size`/`out_size` are channels or features; MACs are for one sample.

    `reads`: the units whose channels it takes in and shrinks with; none for the model's inputs.
    """

    name: str
    operator: str
    in_size: int
    out_size: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    macs: int
    parameters: int
    activation_bytes: int
    reads: tuple[str, ...] = ()


class Unit(Record):
    """Layers whose output widths are coupled: they are pruned together or not at all.

    Widths go in steps of `step` (1, or one channel for each group or head) and never below `min_width`.
    `heads`: the channels are that many equal runs (of attention heads, or of a convolution's groups), each of
    which loses the same number.
    `source`: the unit whose channels this one carries on through a parameter-free shortcut (He et al., 2015,
    option A), which fills the difference of the two widths with zeros, half in front and half behind.
    """

    name: str
    layers: tuple[str, ...]
    width: int = Field(gt=0)
    step: int = Field(default=1, gt=0)
    min_width: int = Field(default=1, gt=0)
    heads: int = Field(default=1, gt=0)
    macs: int
    parameters: int
    activation_bytes: int
    prunable: bool = True
    reason: str = ""
    source: str | None = None

    def width_at(self, keep_ratio: float) -> int:
        """The width nearest to keep_ratio * width that is a multiple of `step` and at least `min_width`."""
        if keep_ratio >= 1.0:
            return self.width
        nearest = round(keep_ratio * self.width / self.step) * self.step
        return max(self.min_width, min(self.width, nearest))

    def width_fits(self, width: int, source: Unit, source_width: int) -> bool:
        """True if `width` can carry `source_width` channels of `source` through the shortcut between them.

        The zeros that pad a shortcut can only leave, on either side, so their number must lie between none
        and that of the original.
        """
        return 0 <= width - source_width <= self.width - source.width


class Block(Record):
    """A residual block whose removal leaves every shape as it was. `units` live wholly inside it."""

    name: str
    layers: tuple[str, ...]
    units: tuple[str, ...]
    macs: int
    parameters: int


class ModelGraph(Record):
    """Units in forward order, the blocks that may be removed whole, and the layers they are made of."""

    units: tuple[Unit, ...]
    blocks: tuple[Block, ...]
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    macs: int
    parameters: int
    activation_bytes: int

    @cached_property
    def unit_by_name(self) -> dict[str, Unit]:
        """Units by their names."""
        return {unit.name: unit for unit in self.units}
