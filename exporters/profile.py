"""From operators to units: which part of a file's latency each unit of the model takes.

Both exporters keep torch's names. An ONNX initializer is called as its parameter ("layer1.0.conv1.weight",
with "_quantized" and the like behind it), through ONNX Runtime's own fusions too; a TFLite tensor carries the
path of classes and attributes ("…Sequential_layer1/…BasicBlock_0/…Conv2d_conv1"). An operator belongs to the
layer whose parameters it reads; one without parameters to the layer that made what it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from device_bench.protocol import OperatorTime, Profile
from pipeline.graph import ModelGraph

OTHER = "other"
# What has weights; a converter may have given them a name of its own, but not the bias that is added behind.
_MATMULS = ("MatMul", "QLinearMatMul", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat")


def units_of_layers(graph: ModelGraph) -> dict[str, str]:
    """The unit of each layer that has weights, in the network's order; exporters put it into their files."""
    units = {layer: unit.name for unit in reversed(graph.units) for layer in unit.layers}
    return {layer.name: units[layer.name] for layer in graph.layers if layer.name in units}


def unit_shares(profile: Profile, units: Mapping[str, str]) -> dict[str, float]:
    """Each unit's share of the latency of the whole file, and `OTHER`; they sum to 1.

    Args:
        profile: of a file that was exported from the module that the units were found in, or from a copy.
        units: by layer, as `units_of_layers` gives them.
    """
    shares = dict.fromkeys(units.values(), 0.0)
    for operator, layer in zip(profile.operators, layers_of(profile.operators, list(units)), strict=True):
        if layer is not None:
            shares[units[layer]] += operator.ms / profile.whole_ms
    # Operators of no unit, and what no operator accounts for.
    shares[OTHER] = 1.0 - sum(shares.values())
    return shares


def layers_of(operators: Sequence[OperatorTime], layers: Sequence[str]) -> list[str | None]:
    """The layer that each operator belongs to; None where nothing tells.

    Args:
        operators: in the order of the run.
        layers: names of the network's layers with weights, in its order.
    """
    names = _Names(layers)
    maker = {name: i for i, operator in enumerate(operators) for name in operator.outputs}
    readers: dict[str, list[int]] = {}
    for i, operator in enumerate(operators):
        for name in operator.inputs:
            readers.setdefault(name, []).append(i)
    owned = [
        names.first(name for name in operator.inputs if name not in maker) or names.first(operator.outputs)
        for operator in operators
    ]
    order = {layer: i for i, layer in enumerate(layers)}
    found: list[str | None] = []
    for i, operator in enumerate(operators):
        layer = owned[i] or _of_bias(i, operators, readers, owned)
        if layer is None:
            before = [found[maker[name]] for name in operator.inputs if maker.get(name, i) < i]
            layer = max((each for each in before if each is not None), key=order.__getitem__, default=None)
        found.append(layer)
    # What comes before the first layer prepares its input.
    for i in reversed(range(len(operators))):
        if found[i] is None:
            behind = [found[j] for name in operators[i].outputs for j in readers.get(name, ())]
            found[i] = next((layer for layer in behind if layer is not None), None)
    return found


def _of_bias(
    position: int,
    operators: Sequence[OperatorTime],
    readers: Mapping[str, Sequence[int]],
    owned: Sequence[str | None],
) -> str | None:
    """The layer whose bias is added to the product of an operator with nameless weights."""
    if operators[position].operator not in _MATMULS:
        return None
    behind = [j for name in operators[position].outputs for j in readers.get(name, ())]
    return next((owned[j] for j in behind if owned[j] is not None), None)


class _Names:
    """Finds layers in the names of tensors."""

    def __init__(self, layers: Iterable[str]) -> None:
        self._parts = {name: name.split(".") for name in layers}

    def first(self, tensors: Iterable[str]) -> str | None:
        """The layer of the first tensor whose name tells one."""
        return next((layer for layer in map(self._of, tensors) if layer is not None), None)

    def _of(self, tensor: str) -> str | None:
        if "/" not in tensor:
            # The longest, as a layer may hold another one.
            held = [name for name in self._parts if tensor.startswith(f"{name}.")]
            return max(held, key=len, default=None)
        # A tensor of fused operators names them all; of two layers the first is that of the weights.
        for path in tensor.split(";"):
            steps = path.split("/")
            while steps and not steps[0].endswith("_wrapped"):
                steps.pop(0)
            fitting = [name for name, parts in self._parts.items() if _fits(steps[1:], parts)]
            # Steps may be missing: without any, "conv1" is meant and not "layer1.0.conv1".
            shortest = min((len(self._parts[name]) for name in fitting), default=0)
            fitting = [name for name in fitting if len(self._parts[name]) == shortest]
            if len(fitting) == 1:
                return fitting[0]
        return None


def _fits(steps: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether classes with attributes ("…BasicBlock_0") are the attributes of a layer's name ("layer1.0").

    A list of modules is never called and leaves no step.
    """
    if not steps or not steps[-1].endswith(f"_{parts[-1]}"):
        return False
    left = iter(reversed(parts))
    return all(any(step.endswith(f"_{part}") for part in left) for step in reversed(steps))
