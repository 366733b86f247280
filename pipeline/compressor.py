"""Applies a plan to a model, and rebuilds a compressed model from files."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from device_bench.storage import write_whole
from pipeline.cuts import Cutter
from pipeline.graph import ModelGraph
from pipeline.methods.layer_methods import factorise_layers_, layer_choices
from pipeline.model import load_model, load_weights_
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
    """A smaller copy of `module` as `plan` says: blocks removed, widths cut, layers factorised.

    Its weights are the original's: zeros, forms and recovery are not of its shape.

    Raises:
        PlanError: the plan does not fit; names the unit or block.
    """
    smaller = Cutter(module, graph).cut(plan)
    factorise_layers_(smaller, layer_choices(plan, graph))
    return smaller


def save_compressed(module: nn.Module, recipe: Recipe, folder: Path) -> None:
    """Write `model.safetensors` and `model.json`, which `load_compressed` reads back.

    Raises:
        RunError: the folder cannot be written.
    """
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    write_whole(folder / WEIGHTS_FILE, save(state))
    write_whole(folder / RECIPE_FILE, recipe.model_dump_json(indent=2).encode() + b"\n")


def load_compressed(folder: Path) -> nn.Module:
    """The module that `save_compressed` wrote, in evaluation mode; no pickle is read.

    Raises:
        WeightsError: the weights are missing, damaged or do not fit the recipe; names the keys.
        BadInputError: the recipe is missing, or is none.
    """
    recipe = _read_recipe(folder / RECIPE_FILE)
    source = recipe.model.source
    if source.endswith(".onnx"):
        # Kept in the run's folder and named by its way from this one, wherever both were moved to.
        source = str(folder / source)
    original = load_model(recipe.model.model_copy(update={"source": source, "weights": None}))
    # Which channels stayed is in the weights that are loaded; here, only their number counts.
    plan = recipe.plan.model_copy(update={"importance": "magnitude"})
    module = compress(original, trace(original, recipe.model.input_shape), plan)
    load_weights_(module, folder / WEIGHTS_FILE)
    return module.eval()


def _read_recipe(path: Path) -> Recipe:
    try:
        return Recipe.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"cannot read {path}: {error.strerror}; give a folder in which a run left a compressed model"
        ) from error
    except ValidationError as error:
        raise BadInputError(
            f"{path} is no recipe of a compressed model: {error.errors()[0]['msg']}"
        ) from error
