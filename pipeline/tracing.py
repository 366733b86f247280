"""From a torch module to a `ModelGraph`: coupled widths, removable blocks, MACs, activation bytes."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from math import prod

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.dependency import WIDTH_LAYERS, Dependencies, pruned_copy
from pipeline.errors import ModelError
from pipeline.graph import Block, Layer, ModelGraph, Unit
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
    units = _checked(units, module, input_shape)
    inner = {block.name: _units_inside(block, units) for block in blocks}
    return ModelGraph(
        units=tuple(units),
        blocks=tuple(block.model_copy(update={"units": inner[block.name]}) for block in blocks),
        layers=tuple(layers.values()),
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
        in_size=layer.in_channels if convolution else layer.in_features,  # type: ignore[arg-type]
        out_size=layer.out_channels if convolution else layer.out_features,  # type: ignore[arg-type]
        kernel=tuple(layer.kernel_size) if convolution else (),  # type: ignore[arg-type]
        stride=tuple(layer.stride) if convolution else (),  # type: ignore[arg-type]
        groups=layer.groups if convolution else 1,  # type: ignore[arg-type]
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
        heads = _heads(dependencies.modules, root)
        grouped = [layer.groups for layer in members if 1 < layer.groups < layer.out_size]
        output = any(dependencies.reaches_output(name) for name in names)
        units.append(
            Unit(
                name=root,
                layers=tuple(names),
                width=layers[root].out_size,
                step=max([heads, *grouped]),
                min_width=max([heads, *grouped]),
                heads=heads,
                macs=sum(layer.macs for layer in members),
                parameters=sum(layer.parameters for layer in members),
                activation_bytes=sum(layer.activation_bytes for layer in members),
                prunable=not output,
                reason="its channels are the model's outputs" if output else "",
            )
        )
    return sorted(units, key=lambda unit: position[unit.layers[0]])


def _cuts_outputs(dependency: object) -> bool:
    return "out_channels" in getattr(dependency.handler, "__name__", "")  # type: ignore[attr-defined]


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


def _checked(units: list[Unit], module: nn.Module, input_shape: tuple[int, ...]) -> list[Unit]:
    """Units that really prune: one that breaks the forward pass or the outputs is marked, with the reason."""
    if _prune_problem([unit for unit in units if unit.prunable], module, input_shape) is None:
        return units
    result = []
    for unit in units:
        problem = (
            _prune_problem([unit], module, input_shape) if unit.prunable and unit.source is None else None
        )
        result.append(
            unit if problem is None else unit.model_copy(update={"prunable": False, "reason": problem})
        )
    return result


def _prune_problem(units: list[Unit], module: nn.Module, input_shape: tuple[int, ...]) -> str | None:
    """Why cutting each of `units` by a step breaks the model; None if it does not."""
    example = torch.zeros(1, *input_shape)
    copy = pruned_copy(module)
    dependencies = Dependencies(copy, input_shape)
    for unit in units:
        if unit.width <= unit.step:
            continue
        run = unit.width // unit.heads
        cut = unit.step // unit.heads
        indices = [head * run + channel for head in range(unit.heads) for channel in range(cut)]
        try:
            dependencies.group(unit.name, indices).prune()
        except Exception as error:
            return f"pruning it fails: {type(error).__name__}: {error}"
    try:
        with torch.no_grad():
            same = copy(example).shape == module(example).shape
    except Exception as error:
        return f"the model does not run once it is pruned: {str(error).splitlines()[0]}"
    return None if same else "pruning it would change the model's outputs"


def _blocks(modules: dict[str, nn.Module], seen: _Seen, layers: dict[str, Layer]) -> list[Block]:
    found: list[Block] = []
    for name, module in modules.items():
        inside = tuple(layer for layer in layers if layer.startswith(f"{name}."))
        same_shape = name in seen.inputs and seen.inputs[name] == seen.outputs[name]
        if not inside or not same_shape or isinstance(module, nn.Sequential) or not _is_residual(module):
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


def _is_residual(module: nn.Module) -> bool:
    """True if the module adds its own input, untouched, to what it computes; an activation may follow."""
    try:
        graph = fx.symbolic_trace(module).graph
    except Exception:
        # What fx cannot follow (control flow on data) is not offered for removal; that is a limit, no error.
        return False
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    return len(inputs) == 1 and any(
        _is_sum(node) and any(_untouched(argument, module) is inputs[0] for argument in node.args)
        for node in graph.nodes
    )


def _is_sum(node: fx.Node) -> bool:
    return node.target in (operator.add, operator.iadd, torch.add) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )


def _untouched(node: object, module: nn.Module) -> object:
    """`node`, or what it stands for if only identities lie between."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        called = module.get_submodule(str(node.target))
        if not isinstance(called, nn.Identity) and not (
            isinstance(called, nn.Sequential) and len(called) == 0
        ):
            break
        node = node.args[0]
    return node
