"""One export a run: pruned copies of a module become ONNX without being exported again.

A dynamo export costs seconds and its graph depends only on the module's code. A structurally pruned copy runs
the same code with other widths, so the graph is kept and what differs is put into it: weights (initializers
bear torch's names), and the few numbers that follow from widths (groups of a depthwise convolution, what a
shortcut pads, the sizes of a reshape), which running the copy once under a recorder tells. What comes out is
compared with torch before anybody gets it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from exporters.onnx_graph import simplify
from exporters.recording import Call, record
from exporters.to_onnx import OUTPUT_NAME, raw_export, trace_input
from exporters.traced_numbers import patch_numbers_, scopes_of
from pipeline.errors import ExportError


class TraceError(ExportError):
    """The traced graph cannot stand for this copy of the module; export the copy anew."""


# What float32 sums in another order may differ by, relative to the largest output.
RELATIVE_TOLERANCE = 1e-3
CHECKED = 3


@dataclass(frozen=True)
class TracedOnnx:
    """A module's unoptimized ONNX graph and the numbers its code used, to be reused for pruned copies.

    Args:
        model: the `onnx.ModelProto` as exported, not optimized.
        calls: what the original module's code passed to torch, by module name.
        example: float32 [n, *input_shape].
    """

    model: Any
    calls: dict[str, tuple[Call, ...]]
    example: torch.Tensor

    @classmethod
    def trace(cls, module: nn.Module, samples: np.ndarray) -> TracedOnnx:
        """Export `module` once.

        Args:
            module: the original, in evaluation mode.
            samples: float32 [n, *input_shape], at least one.

        Raises:
            ExportError: the module cannot be exported; names the operator.
        """
        example = trace_input(samples)
        model = raw_export(module, example)
        calls, _ = record(module, example)
        return cls(model, calls, example)

    def instantiate(self, module: nn.Module, removed: Collection[str] = ()) -> Any:
        """The ONNX model of a pruned copy: simplified like a fresh export, and checked against torch.

        Args:
            module: a copy of the traced module with some widths cut, in evaluation mode.
            removed: names of residual blocks that `nn.Identity` stands for in the copy.

        Returns:
            float `onnx.ModelProto`.

        Raises:
            TraceError: the graph cannot be adapted or computes something else; export the copy anew.
        """
        import onnx

        calls, expected = record(module, self.example)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.value_info[:]
        for name in removed:
            _bypass_(model, self.model, name)
        _drop_dead_nodes_(model)
        _swap_initializers_(model, module)
        try:
            patch_numbers_(model, self.calls, calls, removed)
        except ValueError as error:
            raise TraceError(f"the traced graph does not fit the pruned module: {error}") from error
        try:
            model = simplify(model)
        except Exception as error:
            raise TraceError(
                f"the traced graph does not hold together with the pruned weights: {error}"
            ) from error
        # Fewer samples than were traced: a batch size that became a constant would show.
        _check(model, self.example[:CHECKED].numpy(), expected[:CHECKED].numpy())
        return model


def _swap_initializers_(model: Any, module: nn.Module) -> None:
    from onnx import numpy_helper

    values = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    for tensor in model.graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].detach().cpu().contiguous().numpy()
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _bypass_(model: Any, typed: Any, block: str) -> None:
    """Let every reader of the block's output read the block's input instead."""
    from onnx import TensorProto, helper

    kinds = {v.name: v.type.tensor_type.elem_type for v in [*typed.graph.value_info, *typed.graph.input]}
    constants = {tensor.name for tensor in model.graph.initializer}
    inside = [node for node in model.graph.node if block in scopes_of(node)]
    outside = [node for node in model.graph.node if block not in scopes_of(node)]
    made = {name for node in inside for name in node.output}
    steady = _constant_values(model)
    entering = {
        name
        for node in inside
        for name in node.input
        if name
        and name not in made | constants | steady
        and kinds.get(name, TensorProto.FLOAT) == TensorProto.FLOAT
    }
    final = {value.name for value in model.graph.output}
    leaving = {name for name in made - steady if any(name in node.input for node in outside) or name in final}
    if len(entering) != 1 or len(leaving) != 1:
        raise TraceError(
            f"block {block!r} has {len(entering)} inputs and {len(leaving)} outputs in the traced graph; "
            "only a block with one of each can be bypassed"
        )
    (source,), (result,) = entering, leaving
    for node in outside:
        for position, name in enumerate(node.input):
            if name == result:
                node.input[position] = source
    if result in final:
        for node in inside:
            for position, name in enumerate(node.output):
                if name == result:
                    node.output[position] = f"{result}_removed"
        model.graph.node.append(helper.make_node("Identity", [source], [result], name=f"{block}_removed"))


def _constant_values(model: Any) -> set[str]:
    """Names of values that follow from constants alone; exporters share them between blocks."""
    steady = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if all(not name or name in steady for name in node.input):
            steady.update(node.output)
    return steady


def _drop_dead_nodes_(model: Any) -> None:
    """Remove nodes and initializers that no output needs."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    for tensor in list(model.graph.initializer):
        if tensor.name not in needed:
            model.graph.initializer.remove(tensor)


def _check(model: Any, example: np.ndarray, expected: np.ndarray) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (output,) = session.run([OUTPUT_NAME], {session.get_inputs()[0].name: example})
    except Exception as error:
        raise TraceError(f"onnxruntime refuses the adapted graph: {error}") from error
    if output.shape != expected.shape:
        raise TraceError(f"the adapted graph gives shape {output.shape}, torch {expected.shape}")
    worst = float(np.abs(output - expected).max())
    allowed = RELATIVE_TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not worst <= allowed:
        raise TraceError(
            f"the adapted graph differs from torch by {worst:.2g}; at most {allowed:.2g} is rounding"
        )
