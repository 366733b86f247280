"""What a plan asks of single layers, done in order: a lower rank, zeros, another form of the weights.

`apply_` makes it so once, as a candidate is judged and exported. While a module is trained, `hold_` keeps it
so by parametrizations, through which gradients go straight; `release_` leaves plain weights behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from pipeline.graph import ModelGraph
from pipeline.layer_choice import LayerChoice, LowRank, Schedule
from pipeline.legality import choices_of
from pipeline.methods.low_rank import factorise_, rank_for
from pipeline.methods.quantizers import quantizer_for
from pipeline.methods.quantizers.base import WeightQuantizer
from pipeline.methods.quantizers.uniform import NetworkWide
from pipeline.methods.schedules import ratio_at
from pipeline.methods.sparsity import Masked, global_shares
from pipeline.plan import CompressionPlan


def layer_choices(plan: CompressionPlan, graph: ModelGraph) -> dict[str, LayerChoice]:
    """What each layer of the original is asked for, in forward order, removed blocks left out."""
    gone = {layer for block in graph.blocks if block.name in plan.removed for layer in block.layers}
    return choices_of(plan.layers, graph, gone)


def factorise_layers_(module: nn.Module, choices: Mapping[str, LayerChoice]) -> dict[str, int]:
    """Factorise, in place, what is to be; the rank of each layer.

    Raises:
        PlanError: a rank is above that of a layer's matrix, which pruning may have narrowed.
    """
    return {
        name: factorise_(module, name, choice.low_rank)
        for name, choice in choices.items()
        if choice.low_rank is not None
    }


def settled_plan(plan: CompressionPlan, graph: ModelGraph, module: nn.Module) -> CompressionPlan:
    """The plan with nothing open that only the weights tell.

    Shares of energy become ranks, and a share of all weights becomes a share of each layer that has none of
    its own.

    Args:
        module: cut as the plan says, not yet factorised.
    """
    settled = {}
    if plan.sparsity > 0.0:
        settled = _with_global_sparsity(plan, graph, module)
        plan = plan.model_copy(update={"layers": plan.layers | settled, "sparsity": 0.0})
    for name, choice in layer_choices(plan, graph).items():
        if choice.low_rank is not None and choice.low_rank.energy is not None:
            rank = rank_for(module.get_submodule(name), name, choice.low_rank)
            low_rank = LowRank(kind=choice.low_rank.kind, rank=rank)
            settled[name] = choice.model_copy(update={"low_rank": low_rank})
    return plan.model_copy(update={"layers": plan.layers | settled}) if settled else plan


def _with_global_sparsity(
    plan: CompressionPlan, graph: ModelGraph, module: nn.Module
) -> dict[str, LayerChoice]:
    there = dict(module.named_modules())
    choices = layer_choices(plan, graph)
    weights = {}
    for layer in graph.layers:
        weight = getattr(there.get(layer.name), "weight", None)
        if isinstance(weight, torch.Tensor) and choices.get(layer.name, LayerChoice()).sparsity == 0.0:
            weights[layer.name] = weight
    return {
        name: choices.get(name, LayerChoice()).model_copy(update={"sparsity": share})
        for name, share in global_shares(weights, plan.sparsity).items()
    }


def thin_(module: nn.Module, schedule: Schedule, step: int, steps: int) -> None:
    """Let as many weights be zero as the schedule has for the step, of the final share that is held."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            held = layer.parametrizations["weight"]
            for step_of in held:
                if isinstance(step_of, Masked):
                    step_of.set_(held.original, ratio_at(schedule, step, steps, step_of.sparsity))


def hold_(module: nn.Module, choices: Mapping[str, LayerChoice]) -> None:
    """Let weights be zero, or of a form, from now on, whatever training does to them."""
    shared = _network_wide(module, choices)
    for name, layer, choice in _parts(module, choices):
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        if choice.sparsity > 0.0:
            mask = Masked(weight, choice.sparsity, choice.soft)
            parametrize.register_parametrization(layer, "weight", mask)
        if choice.weights is not None:
            form = Formed(shared[name] if name in shared else quantizer_for(choice.weights))
            parametrize.register_parametrization(layer, "weight", form)


def sparse_layers(module: nn.Module, choices: Mapping[str, LayerChoice]) -> set[str]:
    """The layers of the module whose zeros stay zeros."""
    return {name for name, _, choice in _parts(module, choices) if choice.sparsity > 0.0}


def four_bit_layers(module: nn.Module, choices: Mapping[str, LayerChoice]) -> set[str]:
    """The layers of the module whose weights the file stores in 4 bits."""
    return {name for name, _, choice in _parts(module, choices) if choice.precision == "int4"}


def stored_bytes(module: nn.Module, choices: Mapping[str, LayerChoice]) -> dict[str, int]:
    """What the weights of each layer that has a form of its own take to store, in that form."""
    return {
        name: quantizer_for(choice.weights).stored_bytes(layer.weight)
        for name, layer, choice in _parts(module, choices)
        if choice.weights is not None
    }


def release_(module: nn.Module) -> None:
    """End all that `hold_` began; weights stay as it last had them."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight")


def apply_(module: nn.Module, choices: Mapping[str, LayerChoice]) -> None:
    """Let weights be zero, or of a form, as they are now."""
    hold_(module, choices)
    release_(module)


class Formed(nn.Module):
    """A parametrization that keeps a weight in a form; gradients go straight through.

    Args:
        quantizer: finds the form's parameters anew in whatever training has made of the weight.
    """

    def __init__(self, quantizer: WeightQuantizer) -> None:
        super().__init__()
        self._quantizer = quantizer

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest weight of the form."""
        return self._quantizer.quantize(weight)


def _network_wide(module: nn.Module, choices: Mapping[str, LayerChoice]) -> dict[str, WeightQuantizer]:
    """The quantizer that all layers share which ask for one step for the whole network."""
    asked = {
        name: (layer.weight, quantizer_for(choice.weights))
        for name, layer, choice in _parts(module, choices)
        if choice.weights is not None and choice.weights.method == "network_wide"
    }
    weights = {name: weight for name, (weight, _) in asked.items() if isinstance(weight, torch.Tensor)}
    return {name: form.over(weights) for name, (_, form) in asked.items() if isinstance(form, NetworkWide)}


def _parts(
    module: nn.Module, choices: Mapping[str, LayerChoice]
) -> Iterator[tuple[str, nn.Module, LayerChoice]]:
    """The layers that there are by now, each with what was asked for it or for the one it is a part of."""
    for name, choice in choices.items():
        found = module.get_submodule(name)
        if isinstance(found, nn.Sequential):
            yield from ((f"{name}.{part}", layer, choice) for part, layer in found.named_children())
        else:
            yield name, found, choice
