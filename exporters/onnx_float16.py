"""Operators of an ONNX file computed in 16-bit floats, for accelerators that are faster with them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float16).max)


def in_float16(model: Any, names: Collection[str]) -> Any:
    """A copy in which the named nodes compute in float16; inputs and outputs of the file stay as they were.

    Their weights are stored in 16 bits. Between two such nodes values stay in 16 bits; elsewhere they are
    converted. A runtime without a kernel for it, as ONNX Runtime on a CPU, computes in 32 bits all the same.

    Args:
        model: an `onnx.ModelProto` with shapes inferred.
        names: of nodes whose inputs and outputs are floats, or integers that tell shapes.
    """
    import onnx

    made = onnx.ModelProto.FromString(model.SerializeToString())
    graph = made.graph
    floats = _float_tensors(made)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    # Tensors of 16 bits, by the name of the 32-bit tensor with the same values.
    halves: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.name not in names:
            nodes.append(node)
            continue
        for place, name in enumerate(node.input):
            if name not in floats:
                continue
            if name not in halves:
                halves[name] = f"{name}_float16"
                if name in weights:
                    graph.initializer.append(_half(weights[name], halves[name]))
                else:
                    nodes.append(_cast(name, halves[name], onnx.TensorProto.FLOAT16))
            node.input[place] = halves[name]
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in floats:
                halves[name] = f"{name}_float16"
                node.output[place] = halves[name]
                nodes.append(_cast(halves[name], name, onnx.TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unread(graph)
    # Told before some tensors became 16 bits wide.
    del graph.value_info[:]
    return made


def _float_tensors(model: Any) -> set[str]:
    """Names of all tensors of 32-bit floats."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT}


def _half(tensor: Any, name: str) -> Any:
    from onnx import numpy_helper

    # What 16 bits cannot tell from infinity becomes the largest number they can.
    values = np.clip(numpy_helper.to_array(tensor), -LARGEST, LARGEST).astype(np.float16)
    return numpy_helper.from_array(values, name)


def _cast(source: str, target: str, kind: int) -> Any:
    from onnx import helper

    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)


def _drop_unread(graph: Any) -> None:
    """Remove conversions and weights that nothing reads any more."""
    told = {value.name for value in graph.output}
    read = {name for node in graph.node for name in node.input} | told
    kept = [node for node in graph.node if node.op_type != "Cast" or set(node.output) & read]
    del graph.node[:]
    graph.node.extend(kept)
    stored = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(stored)
