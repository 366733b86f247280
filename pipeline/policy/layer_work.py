"""What a plan leaves of each layer's work, which is what latency grows with.

With i and o what is left of a layer's inputs and outputs, its work has four forms: 1, i, o and i·o (0 where
the layer left with a block): starting it, reading, writing, multiplying. How much of each a layer does goes
by its share of the network's MACs, activations and parameters, of the measured latency, or equally by the
layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.graph import Layer, ModelGraph
from pipeline.policy.base import PolicyContext
from pipeline.tables.codec import Options, PlanCodec

Vector = NDArray[np.float64]

FORMS = ("there", "inputs", "outputs", "inputs times outputs")
MEASURES = ("MACs", "activations", "parameters", "latency", "layers")


@dataclass(frozen=True)
class LayerWork:
    """The layers of one model on one target.

    `sizes`: each layer's share by each of `MEASURES`, float64 [layers, measures]; every column adds up to 1.
    """

    codec: PlanCodec
    sizes: Vector

    @classmethod
    def of(cls, context: PolicyContext, target: str, codec: PlanCodec) -> LayerWork:
        """The work of the context's model; where the target's latency shares are not known, MACs stand in."""
        layers = context.graph.layers
        measured = context.shares.get(target, {})
        macs = [float(layer.macs) for layer in layers]
        columns = [
            macs,
            [float(layer.activation_bytes) for layer in layers],
            [float(layer.parameters) for layer in layers],
            _latencies(context.graph, measured) if measured else macs,
            [1.0] * len(layers),
        ]
        sizes = np.array(columns).T.reshape(len(layers), len(MEASURES))
        return cls(codec, sizes / np.maximum(sizes.sum(axis=0), 1e-12))

    def left(self, rows: Options) -> Vector:
        """The work that stays of each form, for plans [n, positions]: float64 [n, layers, forms]."""
        index = np.asarray(rows, dtype=np.int64)
        ratios = np.ones((len(index), len(self.codec.positions) + 1))
        ratios[:, :-1] = self._ratios[np.arange(index.shape[1]), index]
        outputs = ratios[:, self._writes]
        inputs = (ratios @ self._reads) / self._reads.sum(axis=0)
        there = 1.0 - np.minimum((index @ self._leaves_with), 1.0)
        return np.stack([there, there * inputs, there * outputs, there * inputs * outputs], axis=-1)

    @cached_property
    def _layers(self) -> tuple[Layer, ...]:
        return self.codec.space.graph.layers

    @cached_property
    def _place(self) -> dict[str, int]:
        return {position.name: place for place, position in enumerate(self.codec.positions)}

    @cached_property
    def _ratios(self) -> Vector:
        """What each option really keeps of its unit's width, [positions, options]; 1 for blocks."""
        found = np.ones(self.codec.keeps.shape)
        for place, position in enumerate(self.codec.positions):
            if not position.is_block:
                unit = self.codec.space.graph.unit_by_name[position.name]
                for option, keep in enumerate(position.keeps):
                    found[place, option] = unit.width_at(keep) / unit.width
        return found

    @cached_property
    def _writes(self) -> NDArray[np.int64]:
        """The position that narrows each layer's outputs; one past the last where none does."""
        owner = {name: unit.name for unit in self.codec.space.graph.units for name in unit.layers}
        nobody = len(self.codec.positions)
        return np.array(
            [self._place.get(owner.get(layer.name, ""), nobody) for layer in self._layers], np.int64
        )

    @cached_property
    def _reads(self) -> Vector:
        """How many of each layer's input channels a position narrows, [positions + 1, layers]; last: none."""
        found = np.zeros((len(self.codec.positions) + 1, len(self._layers)))
        widths = {unit.name: unit.width for unit in self.codec.space.graph.units}
        for place, layer in enumerate(self._layers):
            for name in layer.reads or ("",):
                found[self._place.get(name, -1), place] += widths.get(name, 1)
        return found

    @cached_property
    def _leaves_with(self) -> Vector:
        """1 where removing a position's block takes a layer along, [positions, layers]."""
        found = np.zeros((len(self.codec.positions), len(self._layers)))
        blocks = {block.name: set(block.layers) for block in self.codec.space.graph.blocks}
        for place, position in enumerate(self.codec.positions):
            if position.is_block:
                found[place] = [layer.name in blocks[position.name] for layer in self._layers]
        return found


def _latencies(graph: ModelGraph, measured: Mapping[str, float]) -> list[float]:
    """The measured share of each layer: its part of its unit's, by MACs."""
    macs = {layer.name: float(max(1, layer.macs)) for layer in graph.layers}
    found = dict.fromkeys(macs, 0.0)
    for unit in graph.units:
        own = [name for name in unit.layers if name in macs]
        for name in own:
            found[name] += measured.get(unit.name, 0.0) * macs[name] / sum(macs[one] for one in own)
    return [found[layer.name] for layer in graph.layers]
