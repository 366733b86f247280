"""Applies a plan to a model, and rebuilds a compressed model from files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from device_bench.protocol import Record
from pipeline.dependency import Dependencies, pruned_copy
from pipeline.errors import WeightsError
from pipeline.graph import ModelGraph
from pipeline.methods.depth import remove_blocks_
from pipeline.methods.structured_pruning import prune_widths_
from pipeline.model import load_model
from pipeline.plan import CompressionPlan
from pipeline.task import ModelSpec
from pipeline.tracing import trace

WEIGHTS_FILE = "model.safetensors"
RECIPE_FILE = "model.json"


class Recipe(Record):
    """What rebuilds a compressed module: how to make the original, and the plan that cut it."""

    model: ModelSpec
    plan: CompressionPlan


def compress(module: nn.Module, graph: ModelGraph, plan: CompressionPlan) -> nn.Module:
    """A smaller copy of `module` as `plan` says: blocks removed, widths cut. Not yet recovered.

    Raises:
        PlanError: the plan does not fit; names the unit or block.
    """
    plan.checked(graph)
    copy = pruned_copy(module).eval()
    remove_blocks_(copy, plan.removed)
    gone = {unit for block in graph.blocks if block.name in plan.removed for unit in block.units}
    widths = {name: width for name, width in plan.widths(graph).items() if name not in gone}
    if any(width < graph.unit_by_name[name].width for name, width in widths.items()):
        prune_widths_(Dependencies(copy, graph.input_shape), graph, widths)
    for parameter in copy.parameters():
        parameter.grad = None
    return copy


def save_compressed(module: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Write `model.safetensors` and `model.json`, which `load_compressed` reads back."""
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)
    (folder / RECIPE_FILE).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_compressed(folder: Path) -> nn.Module:
    """The module that `save_compressed` wrote, in evaluation mode; no pickle is read.

    Raises:
        WeightsError: the weights do not fit the recipe.
    """
    recipe = Recipe.model_validate_json((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    original = load_model(recipe.model.model_copy(update={"weights": None}))
    module = compress(original, trace(original, recipe.model.input_shape), recipe.plan)
    try:
        module.load_state_dict(load_file(folder / WEIGHTS_FILE))
    except RuntimeError as error:
        raise WeightsError(f"{folder / WEIGHTS_FILE} does not fit {folder / RECIPE_FILE}: {error}") from error
    return module.eval()
