"""Which units really prune: tried on copies, for a dependency graph cannot see every use of a width."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.dependency import Dependencies, pruned_copy
from pipeline.graph import Unit


def checked_units(units: list[Unit], module: nn.Module, input_shape: tuple[int, ...]) -> list[Unit]:
    """`units`, with those that cannot really be cut marked so, and the reason.

    Args:
        units: of `module`, in forward order.
        module: in evaluation mode; left as it is.
        input_shape: shape of one sample, without the batch dimension.
    """
    prunable = [unit for unit in units if unit.prunable]
    if _prune_problem(prunable, module, input_shape) is None:
        return units
    good: list[Unit] = []
    problems: dict[str, str] = {}
    for unit in prunable:
        problem = _prune_problem([*good, unit], module, input_shape)
        if problem is None:
            good.append(unit)
        else:
            problems[unit.name] = problem
    return [
        unit.model_copy(update={"prunable": False, "reason": problems[unit.name]})
        if unit.name in problems
        else unit
        for unit in units
    ]


def _prune_problem(units: list[Unit], module: nn.Module, input_shape: tuple[int, ...]) -> str | None:
    """Why cutting all of `units` breaks the model; None if it does not.

    They lose one step in front and then, in another copy, their back halves: what goes by pairs, or only from
    one end, fails one of the two.
    """
    steps = [_channels(unit, 0, 1) for unit in units]
    halves = [_channels(unit, unit.width // unit.heads // 2, unit.width // unit.heads) for unit in units]
    for cuts in (steps, halves):
        problem = _cut_problem(units, cuts, module, input_shape)
        if problem is not None:
            return problem
    return None


def _channels(unit: Unit, start: int, stop: int) -> list[int]:
    """Channels `start` to `stop` of each of the unit's runs, none if that would be all."""
    run = unit.width // unit.heads
    if stop - start >= run:
        return []
    return [head * run + channel for head in range(unit.heads) for channel in range(start, stop)]


def _cut_problem(
    units: list[Unit], cuts: list[list[int]], module: nn.Module, input_shape: tuple[int, ...]
) -> str | None:
    example = torch.zeros(1, *input_shape)
    copy = pruned_copy(module)
    dependencies = Dependencies(copy, input_shape)
    for unit, channels in zip(units, cuts, strict=True):
        if not channels:
            continue
        try:
            dependencies.group(unit.name, channels).prune()
        except Exception as error:
            return f"pruning it fails: {type(error).__name__}: {error}"
        if any(dependencies.width(layer) != unit.width - len(channels) for layer in unit.layers):
            return "its channels are coupled with each other: some cannot leave without others"
    try:
        with torch.no_grad():
            same = copy(example).shape == module(example).shape
    except Exception as error:
        return f"the model does not run once it is pruned: {str(error).splitlines()[0]}"
    return None if same else "pruning it would change the model's outputs"
