"""From a torch module to a `ModelGraph`: coupled widths, removable blocks, MACs, activation bytes."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod

import torch
import torch_pruning as tp
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.dependency import WIDTH_LAYERS, Dependencies, pruned_copy
from pipeline.errors import ModelError
from pipeline.graph import Block, Layer, ModelGraph, Unit
from pipeline.prunability import checked_units
from pipeline.residual import is_residual
from pipeline.zoo.resnet import OptionAShortcut


@dataclass(frozen=True)
class _Seen:
    """Shapes that one forward pass of one sample showed."""

    order: list[str]
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    macs: dict[str, int]
    total_macs: int


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> ModelGraph:
    """What `module` is made of.

    MACs are counted by torch's own FLOP counter from the operators that really run (attention included),
    for one sample. The layers that make the model's outputs are never prunable.

    Args:
        module: in evaluation mode; left as it is.
        input_shape: shape of one sample, without the batch dimension.

    Raises:
        ModelError: the module cannot be run or traced.
    """
    module = pruned_copy(module).eval()
    dependencies = Dependencies(module, input_shape)
    seen = _observe(module, input_shape)
    layers = {name: _layer(name, dependencies.modules[name], seen) for name in seen.order}
    blocks = _blocks(dependencies.modules, seen, layers)
    units = _linked(_units(dependencies, layers, blocks), dependencies)
    units = checked_units(units, module, input_shape)
    inner = {block.name: _units_inside(block, units) for block in blocks}
    reads = _reads(units, dependencies)
    return ModelGraph(
        units=tuple(units),
        blocks=tuple(block.model_copy(update={"units": inner[block.name]}) for block in blocks),
        layers=tuple(one.model_copy(update={"reads": reads.get(name, ())}) for name, one in layers.items()),
        input_shape=input_shape,
        macs=seen.total_macs,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        activation_bytes=sum(layer.activation_bytes for layer in layers.values()),
    )


def _observe(module: nn.Module, input_shape: tuple[int, ...]) -> _Seen:
    order: list[str] = []
    inputs: dict[str, tuple[int, ...]] = {}
    outputs: dict[str, tuple[int, ...]] = {}

    def hook(name: str, layer: nn.Module) -> None:
        def record(_: nn.Module, given: tuple[object, ...], result: object) -> None:
            if len(given) == 1 and isinstance(given[0], torch.Tensor) and isinstance(result, torch.Tensor):
                inputs[name], outputs[name] = tuple(given[0].shape), tuple(result.shape)
                if isinstance(layer, WIDTH_LAYERS) and name not in order:
                    order.append(name)

        handles.append(layer.register_forward_hook(record))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, layer in module.named_modules():
        if name:
            hook(name, layer)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = module(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(result, torch.Tensor):
        raise ModelError(f"the model must return one tensor; got {type(result).__name__}")
    root = type(module).__name__
    macs = {name: sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
    named = {name.removeprefix(f"{root}."): count for name, count in macs.items()}
    return _Seen(order, inputs, outputs, named, counter.get_total_flops() // 2)


def _layer(name: str, layer: nn.Module, seen: _Seen) -> Layer:
    convolution = isinstance(layer, nn.Conv1d | nn.Conv2d)
    return Layer(
        name=name,
        operator=type(layer).__name__,
        in_size=layer.in_channels if convolution else layer.in_features,
        out_size=layer.out_channels if convolution else layer.out_features,
        kernel=tuple(layer.kernel_size) if convolution else (),
        stride=tuple(layer.stride) if convolution else (),
        groups=layer.groups if convolution else 1,
        macs=seen.macs.get(name, 0),
        parameters=sum(parameter.numel() for parameter in layer.parameters()),
        activation_bytes=4 * prod(seen.outputs[name]),
    )


def _units(dependencies: Dependencies, layers: dict[str, Layer], blocks: list[Block]) -> list[Unit]:
    inside = {layer for block in blocks for layer in block.layers}
    position = {name: index for index, name in enumerate(layers)}
    units = []
    for group in dependencies.groups():
        named = {dependencies.member_name(dep.target.module) for dep, _ in group if _cuts_outputs(dep)}
        names = sorted((name for name in named if name in layers), key=position.__getitem__)
        # A unit is named after a layer that stays when blocks go, so that its name survives their removal.
        root = next((name for name in names if name not in inside), names[0])
        members = [layers[name] for name in names]
        grouped = [layer.groups for layer in members if 1 < layer.groups < layer.out_size]
        heads = lcm(_heads(dependencies.modules, root), *grouped)
        output = any(dependencies.reaches_output(name) for name in names)
        units.append(
            Unit(
                name=root,
                layers=tuple(names),
                width=layers[root].out_size,
                step=heads,
                min_width=heads,
                heads=heads,
                macs=sum(layer.macs for layer in members),
                parameters=sum(layer.parameters for layer in members),
                activation_bytes=sum(layer.activation_bytes for layer in members),
                prunable=not output,
                reason="its channels are the model's outputs" if output else "",
            )
        )
    return sorted(units, key=lambda unit: position[unit.layers[0]])


def _reads(units: list[Unit], dependencies: Dependencies) -> dict[str, tuple[str, ...]]:
    """For each layer that loses inputs with some units, those units."""
    found: dict[str, tuple[str, ...]] = {}
    for unit in units:
        for dep, _ in dependencies.group(unit.name, list(range(unit.width))):
            name = dependencies.member_name(dep.target.module)
            if name is not None and _cuts_inputs(dep) and unit.name not in found.get(name, ()):
                found[name] = (*found.get(name, ()), unit.name)
    return found


def _cuts_inputs(dependency: tp.Dependency) -> bool:
    name = getattr(dependency.handler, "__name__", "")
    return "in_channels" in name and not _cuts_outputs(dependency)


def _cuts_outputs(dependency: tp.Dependency) -> bool:
    return "out_channels" in getattr(dependency.handler, "__name__", "")


def _heads(modules: dict[str, nn.Module], layer: str) -> int:
    """Heads of the attention whose projection `layer` is; its channels are that many equal runs."""
    parent = modules[layer.rpartition(".")[0]] if "." in layer else None
    heads = getattr(parent, "num_heads", 1)
    # The projection back to the trunk mixes heads: its outputs are trunk channels.
    mixes = layer.rpartition(".")[2] in {"proj", "out_proj", "out", "output"}
    return int(heads) if isinstance(heads, int) and not mixes else 1


def _linked(units: list[Unit], dependencies: Dependencies) -> list[Unit]:
    """`source` set where a unit carries a narrower one's channels through an option-A shortcut."""
    source: dict[str, str] = {}
    for name, module in dependencies.modules.items():
        if not isinstance(module, OptionAShortcut):
            continue
        owner = {"in": "", "out": ""}
        for unit in units:
            for dep, _ in dependencies.group(unit.name, list(range(unit.width))):
                if dep.target.module is module:
                    owner["out" if _cuts_outputs(dep) else "in"] = unit.name
        if not owner["in"] or not owner["out"]:
            raise ModelError(
                f"shortcut {name!r} joins no two widths that are known; it cannot be pruned around"
            )
        source[owner["out"]] = owner["in"]
    return [unit.model_copy(update={"source": source.get(unit.name)}) for unit in units]


def _blocks(modules: dict[str, nn.Module], seen: _Seen, layers: dict[str, Layer]) -> list[Block]:
    found: list[Block] = []
    for name, module in modules.items():
        inside = tuple(layer for layer in layers if layer.startswith(f"{name}."))
        same_shape = name in seen.inputs and seen.inputs[name] == seen.outputs[name]
        if not inside or not same_shape or isinstance(module, nn.Sequential) or not is_residual(module):
            continue
        found.append(
            Block(
                name=name,
                layers=inside,
                units=(),
                macs=seen.macs.get(name, sum(layers[layer].macs for layer in inside)),
                parameters=sum(parameter.numel() for parameter in module.parameters()),
            )
        )
    # The finest blocks only: removing an outer one is removing all that it holds.
    names = [block.name for block in found]
    return [block for block in found if not any(other.startswith(f"{block.name}.") for other in names)]


def _units_inside(block: Block, units: list[Unit]) -> tuple[str, ...]:
    return tuple(unit.name for unit in units if set(unit.layers) <= set(block.layers))
