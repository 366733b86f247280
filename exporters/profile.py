"""From a profile's operators to the layers of the network they were exported from, and to their units.

Exporters keep torch's names: an ONNX file's weights bear those of the parameters ("layer1.0.conv1.weight"),
a TFLite file's tensors the path of classes and attributes ("…Sequential_layer1/…BasicBlock_0/…Conv2d_conv1"),
and quantization adds to them only. So an operator with weights belongs to the layer that its weights name. One
without (an addition, an activation, a change of layout) works on the channels that its producers made, and is
theirs in equal parts. What comes before the first layer, such as quantizing the input, is no layer's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from device_bench.protocol import OperatorTime, Profile
from pipeline.graph import ModelGraph

# Layer → its part of an operator; the parts sum to 1, or there are none.
Owners = dict[str, float]

# Multiplications by a weight that an exporter may have put into another form, so that its name is lost.
_PRODUCTS = frozenset(
    (
        *("MatMul", "QLinearMatMul", "MatMulInteger", "Gemm", "QGemm"),
        *("FULLY_CONNECTED", "BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D"),
    )
)


def unit_shares(profile: Profile, graph: ModelGraph) -> dict[str, float]:
    """What share of a file's latency each unit has, by its name; they sum to at most 1.

    An operator's time counts for the unit whose channels it makes. The rest is no unit's: quantizing the input,
    the call itself, and what the operators do not account for.
    """
    layers = layer_shares(profile, [layer for unit in graph.units for layer in unit.layers])
    return {unit.name: sum(layers[layer] for layer in unit.layers) for unit in graph.units}


def layer_shares(profile: Profile, layers: Sequence[str]) -> dict[str, float]:
    """What share of a file's latency each layer has; they sum to at most 1.

    Args:
        profile: of a file that edgeloop exported.
        layers: names of the network's layers with weights.
    """
    shares = dict.fromkeys(layers, 0.0)
    whole = max(profile.whole_ms, sum(operator.ms for operator in profile.operators))
    for operator, owners in zip(profile.operators, owners_of(profile.operators, layers), strict=True):
        for layer, part in owners.items():
            shares[layer] += part * operator.ms / whole
    return shares


def owners_of(operators: Sequence[OperatorTime], layers: Collection[str]) -> list[Owners]:
    """The layers that each operator belongs to; none for what comes before the first layer.

    Args:
        operators: in the order of the run.
    """
    places = _Places(layers)
    made = {tensor for operator in operators for tensor in operator.outputs}
    constants = [[name for name in operator.inputs if name not in made] for operator in operators]
    claims = [places.first_layer(names) for names in constants]
    _claim_products_(claims, operators, constants, places)
    owners: dict[str, Owners] = {}
    found = []
    for operator, claim in zip(operators, claims, strict=True):
        sources = [owners[name] for name in dict.fromkeys(operator.inputs) if name in owners]
        own = {claim: 1.0} if claim is not None else _mean([source for source in sources if source])
        owners |= dict.fromkeys(operator.outputs, own)
        found.append(own)
    return found


def _mean(sources: Sequence[Owners]) -> Owners:
    parts: Counter[str] = Counter()
    for source in sources:
        for layer, part in source.items():
            parts[layer] += part / len(sources)  # type: ignore[assignment]
    return dict(parts)


def _claim_products_(
    claims: list[str | None],
    operators: Sequence[OperatorTime],
    constants: Sequence[Sequence[str]],
    places: _Places,
) -> None:
    """Find the layers of products whose weights lost their names.

    ONNX adds a bias, whose name is kept, in the next operator. A converter that multiplies a scale into a
    weight names what comes out after the module around it: if one of its layers has no operator yet, that is
    the one.
    """
    readers: dict[str, list[int]] = {}
    for index, operator in enumerate(operators):
        for name in operator.inputs:
            readers.setdefault(name, []).append(index)
    nameless = [
        index
        for index, operator in enumerate(operators)
        if claims[index] is None and operator.operator in _PRODUCTS and constants[index]
    ]
    for index in nameless:
        following = {reader for name in operators[index].outputs for reader in readers.get(name, ())}
        if len(following) == 1 and operators[(only := following.pop())].operator not in _PRODUCTS:
            claims[index] = claims[only]
    for index in nameless:
        if claims[index] is None:
            left = places.layers - {claim for claim in claims if claim is not None}
            claims[index] = places.only_one([*constants[index], *operators[index].outputs], left)


class _Place(NamedTuple):
    """Where a tensor's name points to: a module, and whether that is a layer with weights."""

    module: str
    is_layer: bool


class _Places:
    """Knows the layers and the modules around them by their names in files."""

    def __init__(self, layers: Collection[str]) -> None:
        self.layers = frozenset(layers)
        self._modules = {
            layer.rsplit(".", depth)[0] for layer in layers for depth in range(layer.count(".") + 1)
        }

    def first_layer(self, names: Sequence[str]) -> str | None:
        """The layer that the first telling name belongs to: a weight stands before its bias.

        Equal constants may have been made one, which is why not all of them are heard.
        """
        places = (self._place(name) for name in names)
        return next((place.module for place in places if place is not None and place.is_layer), None)

    def only_one(self, names: Sequence[str], left: Collection[str]) -> str | None:
        """The one layer of `left` inside the module that a name points to; None where there is not one."""
        for name in names:
            place = self._place(name)
            inside = [layer for layer in left if place is not None and layer.startswith(f"{place.module}.")]
            if len(inside) == 1:
                return inside[0]
        return None

    def _place(self, name: str) -> _Place | None:
        places = [self._from_parameter(name)] if "/" not in name else []
        # Where operators were fused, the paths of all of them are given.
        places += [self._from_path(path) for path in name.split(";") if "/" in path]
        known = [place for place in places if place is not None]
        return next((place for place in known if place.is_layer), known[0] if known else None)

    def _from_parameter(self, name: str) -> _Place | None:
        """From "layer1.0.conv1.weight_quantized"; the last part is the parameter and what was added to it."""
        module = name.rpartition(".")[0]
        return _Place(module, True) if module in self.layers else None

    def _from_path(self, path: str) -> _Place | None:
        """From "package.Wrapper/package.Net_wrapped/package.Sequential_layer1/package.Conv2d_0"."""
        steps = path.split("/")
        wrapped = [position for position, step in enumerate(steps) if step.endswith("_wrapped")]
        module = ""
        for step in steps[wrapped[0] + 1 if wrapped else 0 :]:
            inner = self._child(module, step)
            if inner is None and module:
                break
            module = inner or ""
        return _Place(module, module in self.layers) if module else None

    def _child(self, module: str, step: str) -> str | None:
        """The module that a step leads to. Both a class and an attribute may have underscores."""
        words = step.rpartition(".")[2].split("_")
        for start in range(1, len(words)):
            attribute = "_".join(words[start:])
            inner = f"{module}.{attribute}" if module else attribute
            if inner in self._modules:
                return inner
        return None
