"""Where the methods of a `LayerChoice` are legal, and why not elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from device_bench.errors import BadInputError
from pipeline.errors import PlanError
from pipeline.graph import Layer, ModelGraph
from pipeline.layer_choice import EVERY, LayerChoice, LowRank
from pipeline.methods.quantizers import quantizer_for


def check_layers(choices: Mapping[str, LayerChoice], graph: ModelGraph, gone: Collection[str]) -> None:
    """Nothing, if every choice is legal for the layer it names.

    Args:
        gone: layers that leave with a removed block.

    Raises:
        PlanError: names the first layer for which it is not, and the reason.
    """
    layers = {layer.name: layer for layer in graph.layers}
    for name, choice in choices.items():
        if name not in layers:
            raise PlanError(
                f"plan names layer {name!r}; the model's layers with weights are: {', '.join(layers)}"
            )
        if name in gone:
            raise PlanError(f"plan changes layer {name!r} and removes the block it is in; do one of the two")
        reason = why_not(layers[name], choice)
        if reason is not None:
            raise PlanError(f"layer {name!r}: {reason}")


def check_every(choice: LayerChoice, graph: ModelGraph) -> None:
    """Nothing, if what every layer is asked for is legal for one of them at least.

    Raises:
        PlanError: it is legal for none; with the reason for the last.
    """
    reasons = [why_not(layer, choice) for layer in graph.layers]
    if reasons and all(reason is not None for reason in reasons):
        raise PlanError(f"the choice for every layer is legal for none of them: {reasons[-1]}")


def choices_of(
    choices: Mapping[str, LayerChoice], graph: ModelGraph, gone: Collection[str]
) -> dict[str, LayerChoice]:
    """What each layer is asked for, the choice for every layer spelled out, in forward order.

    Of that choice a layer takes whatever is legal for it.
    """
    found = {}
    for layer in graph.layers:
        if layer.name in gone:
            continue
        choice = choices.get(layer.name) or _legal_part(layer, choices.get(EVERY, LayerChoice()))
        if choice != LayerChoice():
            found[layer.name] = choice
    return found


def why_not(layer: Layer, choice: LayerChoice) -> str | None:
    """Why the choice is not legal for the layer; None where it is."""
    if choice.weights is not None:
        try:
            quantizer_for(choice.weights)
        except BadInputError as error:
            return str(error)
    return None if choice.low_rank is None else _why_no_low_rank(layer, choice.low_rank)


def most_rank(layer: Layer, kind: str) -> int:
    """The rank of the layer's matrix as `kind` reads it.

    "svd" [out, in]; "channel" [out, in · k · k]; "spatial" [in · k, out · k].
    """
    area = prod(layer.kernel) if layer.kernel else 1
    if kind == "spatial":
        return min(layer.in_size * layer.kernel[0], layer.out_size * layer.kernel[-1])
    return min(layer.out_size, layer.in_size * (area if kind == "channel" else 1))


def _why_no_low_rank(layer: Layer, asked: LowRank) -> str | None:
    linear = not layer.kernel
    if linear != (asked.kind == "svd"):
        allowed = "svd" if linear else "spatial or channel"
        return f"low rank of kind {asked.kind!r} is not for {layer.operator}; ask for {allowed}"
    if layer.groups != 1:
        return f"a convolution in {layer.groups} groups has no low rank of its own; leave low_rank out"
    if asked.kind == "spatial" and (len(layer.kernel) != 2 or prod(layer.kernel) == 1):
        return f"a kernel of {'x'.join(map(str, layer.kernel))} cannot be split in two; ask for channel"
    most = most_rank(layer, asked.kind)
    if asked.rank is not None and asked.rank > most:
        return f"rank {asked.rank} is above the matrix's, which is {most}; give 1 to {most}"
    return None


def _legal_part(layer: Layer, choice: LayerChoice) -> LayerChoice:
    return choice if why_not(layer, choice) is None else choice.model_copy(update={"low_rank": None})
