"""One conversion a run: pruned copies of a module become TFLite without being converted again.

The converter takes seconds, and what it makes of a pruned copy differs from what it made of the original in
constants and shapes alone. So the original is converted once with random weights, by which every constant
is recognised as a parameter in a certain layout. A copy's weights are then put in their places, LiteRT
derives the shapes, and what comes out is compared with torch before anybody gets it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from exporters.recording import Call, record
from exporters.tflite_dead import drop_dead_operators_
from exporters.tflite_graph import constant, give_constant_, operator_names, pack, unpack
from exporters.tflite_shapes import plain_interpreter, settle_shapes_
from exporters.to_onnx import trace_input
from exporters.to_tflite import channels_last, to_float_tflite
from exporters.traced_numbers import PADS
from exporters.traced_onnx import RELATIVE_TOLERANCE, TraceError
from pipeline.methods.folding import fold_norms

# How the converter lays out a parameter: the order of torch's dimensions. A convolution's weight goes from
# [out, in, h, w] to [out, h, w, in], a depthwise one's to [1, h, w, out]; a matrix may be transposed.
ORDERS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((0,),),
    2: ((0, 1), (1, 0)),
    3: ((0, 1, 2), (0, 2, 1)),
    4: ((0, 2, 3, 1), (1, 2, 3, 0), (0, 1, 2, 3)),
}


@dataclass(frozen=True)
class Place:
    """Where a constant comes from: a parameter, the order of its dimensions, and what it is multiplied by.

    The converter multiplies what scales a linear layer's output, such as that of attention, into its weight.
    """

    parameter: str
    order: tuple[int, ...]
    factor: np.float32


@dataclass(frozen=True)
class TracedTflite:
    """A module's float TFLite file and where in it everything comes from, to be reused for pruned copies.

    Args:
        content: the file, with random weights.
        places: by tensor index.
        blocks: submodule's name → indices of the tensors that are its input and its output.
        calls: what the original module's code passed to torch, by module name.
        example: float32 [n, *input_shape], channels first.
    """

    content: bytes
    places: dict[int, Place]
    blocks: dict[str, tuple[int, int]]
    calls: dict[str, tuple[Call, ...]]
    example: torch.Tensor

    @classmethod
    def trace(cls, module: nn.Module, samples: np.ndarray) -> TracedTflite:
        """Convert `module` once.

        Args:
            module: the original, in evaluation mode.
            samples: float32 [n, *input_shape], channels first, at least one.

        Raises:
            ExportError: the module cannot be converted; names the operator.
            TraceError: the converter merged parameters, so that copies must be converted one by one.
        """
        example = trace_input(samples)
        marked = _with_random_weights(fold_norms(module, example))
        content = to_float_tflite(marked, samples[:1])
        model = unpack(content)
        calls, _ = record(module, example)
        return cls(
            content, _places(model, marked), _blocks(model, content, marked, example[:1]), calls, example
        )

    def instantiate(self, module: nn.Module, removed: Collection[str] = ()) -> bytes:
        """The float TFLite file of a pruned copy, checked against torch.

        Args:
            module: a copy of the traced module with some widths cut, in evaluation mode.
            removed: names of residual blocks that `nn.Identity` stands for in the copy.

        Raises:
            TraceError: the file cannot be adapted or computes something else; convert the copy anew.
        """
        calls, expected = record(module, self.example)
        folded = fold_norms(module, self.example)
        model = unpack(self.content)
        parameters = {name: value.detach().numpy() for name, value in folded.named_parameters()}
        for index, place in self.places.items():
            if place.parameter in parameters:
                value = parameters[place.parameter].transpose(place.order)
                give_constant_(model, index, value * place.factor)
        _patch_pads_(model, self.calls, calls, removed)
        self._bypass_(model, removed)
        drop_dead_operators_(model)
        settle_shapes_(model)
        _settle_multipliers_(model)
        content = pack(model)
        _check(content, self.example[:2], expected[:2].numpy())
        return content

    def _bypass_(self, model: Any, removed: Collection[str]) -> None:
        """Let every reader of a removed block's output read the block's input instead."""
        instead: dict[int, int] = {}
        for block in removed:
            if block not in self.blocks:
                raise TraceError(f"block {block!r} was not found in the converted graph")
            source, result = self.blocks[block]
            instead[result] = source

        def left(index: int) -> int:
            # What went into a block may itself come from one that is gone.
            while index in instead:
                index = instead[index]
            return index

        graph = model.subgraphs[0]
        if any(int(index) in instead for index in graph.outputs):
            raise TraceError("the last block gives the model's output and cannot be bypassed")
        for operator in graph.operators:
            operator.inputs = np.array([left(int(index)) for index in operator.inputs], np.int32)


def _with_random_weights(module: nn.Module) -> nn.Module:
    """A copy in which no two parameters are alike, of a size that keeps activations in range."""
    marked = copy.deepcopy(module).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in marked.parameters():
        inputs = math.prod(parameter.shape[1:]) if parameter.ndim > 1 else 25
        parameter.data = torch.randn(parameter.shape, generator=generator) * math.sqrt(2.0 / max(1, inputs))
    return marked


def _places(model: Any, marked: nn.Module) -> dict[int, Place]:
    parameters = {name: value.detach().numpy() for name, value in marked.named_parameters()}
    places = {}
    for index in range(len(model.subgraphs[0].tensors)):
        value = constant(model, index)
        if value is None or value.dtype != np.float32 or value.size < 2:
            continue
        for name, parameter in parameters.items():
            for order in ORDERS.get(parameter.ndim, ()):
                factor = _factor(parameter.transpose(order), value)
                if factor is not None:
                    places[index] = Place(name, order, factor)
    lost = sorted(parameters.keys() - {place.parameter for place in places.values()})
    if lost:
        raise TraceError(
            f"{len(lost)} of {len(parameters)} parameters are merged with others in the converted graph "
            f"({lost[0]!r} is one); convert each copy of this model anew"
        )
    return places


def _factor(parameter: np.ndarray, value: np.ndarray) -> np.float32 | None:
    """What `parameter` was multiplied by to become `value`, or None."""
    if parameter.shape != value.shape:
        return None
    factor = np.float32(value.flat[0] / parameter.flat[0])
    return factor if np.allclose(parameter * factor, value, rtol=1e-5, atol=0.0) else None


def _blocks(
    model: Any, content: bytes, marked: nn.Module, example: torch.Tensor
) -> dict[str, tuple[int, int]]:
    """Which tensors hold what goes into and comes out of each submodule, found by their values."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    handles = []
    for name, layer in marked.named_modules():
        if any(True for _ in layer.children()):

            def hook(_: nn.Module, given: Any, result: torch.Tensor, name: str = name) -> None:
                seen[name] = (given[0], result)

            handles.append(layer.register_forward_hook(hook))
    with torch.no_grad():
        marked(example)
    for handle in handles:
        handle.remove()
    interpreter = plain_interpreter(content)
    interpreter.set_tensor(_input_index(interpreter), np.ascontiguousarray(channels_last(example.numpy())))
    interpreter.invoke()
    activations = {
        int(index): interpreter.get_tensor(int(index))
        for index in {
            *model.subgraphs[0].inputs,
            *(i for op in model.subgraphs[0].operators for i in op.outputs),
        }
    }
    found = {}
    for name, pair in seen.items():
        indices = [_holding(activations, channels_last(tensor.numpy())) for tensor in pair]
        if indices[0] is not None and indices[1] is not None:
            found[name] = (indices[0], indices[1])
    return found


def _holding(activations: dict[int, np.ndarray], value: np.ndarray) -> int | None:
    allowed = 1e-4 * max(1e-6, float(np.abs(value).max()))
    for index, held in activations.items():
        if held.shape == value.shape and np.abs(held - value).max() <= allowed:
            return index
    return None


def _patch_pads_(
    model: Any,
    before: dict[str, tuple[Call, ...]],
    after: dict[str, tuple[Call, ...]],
    removed: Collection[str],
) -> None:
    """Give each PAD of channels what the copy's code passes; no other number follows from widths."""
    changes: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for scope, calls in before.items():
        if any(scope == block or scope.startswith(f"{block}.") for block in removed):
            continue
        now = after.get(scope, ())
        if [call.function for call in calls] != [call.function for call in now]:
            raise TraceError(f"module {scope!r} calls other functions than when it was traced")
        for old, new in zip(calls, now, strict=True):
            if old.function in PADS and len(old.numbers) >= 6:
                pairs = [(int(call.numbers[4]), int(call.numbers[5])) for call in (old, new)]
                changes.setdefault(pairs[0], set()).add(pairs[1])
    for operator, kind in zip(model.subgraphs[0].operators, operator_names(model), strict=True):
        amounts = constant(model, operator.inputs[1]) if kind == "PAD" else None
        if amounts is None or np.count_nonzero(amounts.any(axis=1)) != 1:
            continue
        # Where the converter kept an activation channels first, the channels are not the last axis.
        axis = int(np.flatnonzero(amounts.any(axis=1))[0])
        pair = (int(amounts[axis][0]), int(amounts[axis][1]))
        if pair not in changes:
            continue
        if len(changes[pair]) > 1:
            raise TraceError(f"a padding of {pair} channels cannot be told from others like it")
        patched = amounts.copy()
        patched[axis] = next(iter(changes[pair]))
        give_constant_(model, operator.inputs[1], patched)


def _settle_multipliers_(model: Any) -> None:
    """Let depthwise convolutions say how many outputs each input now has.

    LiteRT's own kernels go by the shapes and never look; XNNPACK leaves an operator whose number is wrong to
    them, which take several times as long.
    """
    graph = model.subgraphs[0]
    for operator, kind in zip(graph.operators, operator_names(model), strict=True):
        if kind == "DEPTHWISE_CONV_2D":
            source, weight = (graph.tensors[int(index)].shape for index in operator.inputs[:2])
            operator.builtinOptions.depthMultiplier = int(weight[-1]) // int(source[-1])


def _input_index(interpreter: Any) -> int:
    index: int = interpreter.get_input_details()[0]["index"]
    return index


def _check(content: bytes, example: torch.Tensor, expected: np.ndarray) -> None:
    interpreter = plain_interpreter(content)
    sink = interpreter.get_output_details()[0]["index"]
    worst = 0.0
    for sample, wanted in zip(channels_last(example.numpy()), expected, strict=True):
        interpreter.set_tensor(_input_index(interpreter), np.ascontiguousarray(sample[None]))
        interpreter.invoke()
        got = interpreter.get_tensor(sink)[0]
        if got.shape != wanted.shape:
            raise TraceError(f"the adapted graph gives shape {got.shape}, torch {wanted.shape}")
        worst = max(worst, float(np.abs(got - wanted).max()))
    allowed = RELATIVE_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not worst <= allowed:
        raise TraceError(f"the adapted graph differs from torch by {worst:.2g}; rounding is {allowed:.2g}")
