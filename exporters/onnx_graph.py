"""What is done to an ONNX graph: simplify it, describe it, and put metadata into it."""

from __future__ import annotations

import warnings
from typing import Any

from device_bench.protocol import TensorInfo
from exporters.base import ArtifactMetadata
from pipeline.errors import ExportError

METADATA_KEY = "edgeloop"
# Operators for which ONNX Runtime's CPU provider has integer kernels, and those that only move integers.
# LayerNormalization is left out: QDQ around it adds conversions and it runs in float all the same.
INTEGER_OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "LeakyRelu", "Sigmoid"),
    *(
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Concat",
        "Split",
        "Pad",
        "Resize",
        "Reshape",
        "Transpose",
    ),
    *("Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "Where"),
)
# Not asked for, yet fused where its neighbours leave it between a DequantizeLinear and a QuantizeLinear.
FUSED_OPERATORS = frozenset([*INTEGER_OPERATORS, "Softmax"])
# Operators that move or describe values and compute nothing: staying float costs no accuracy.
MOVES = frozenset(
    (
        *(
            "QuantizeLinear",
            "DequantizeLinear",
            "Constant",
            "ConstantOfShape",
            "Identity",
            "Shape",
            "Size",
            "Cast",
        ),
        *("CastLike", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"),
        *("GatherND", "Concat", "Expand", "Tile", "Pad", "Range"),
    )
)


def simplify(model: Any) -> Any:
    """The model with constants folded, batch norm in the convolutions and dead nodes gone.

    Args:
        model: an `onnx.ModelProto` as exported without optimization; not changed.
    """
    import onnx
    import onnxslim
    from onnxscript import optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations, of no use to our callers
        optimized = optimizer.optimize(model)
        slim: Any = onnxslim.slim(optimized)
    if not isinstance(slim, onnx.ModelProto):
        raise ExportError("the ONNX simplifier gave no model back; update onnxslim")
    _pool_globally_(slim)
    for node in slim.graph.node:
        # Source lines of the machine it was exported on; several times the size of a small graph.
        del node.metadata_props[:]
    del slim.graph.value_info[:]
    return slim


def _pool_globally_(model: Any) -> None:
    """Turn ReduceMean over height and width into GlobalAveragePool, which has an integer kernel."""
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(numpy_helper.to_array(constants[node.input[1]]).ravel().tolist())
        if axes not in ([2, 3], [-2, -1]) or not _has_rank_4(model, node.input[0]):
            continue
        keeps = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        pooled = node.output[0] if keeps else f"{node.output[0]}_pooled"
        new = [helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=f"{node.name}_pool")]
        if not keeps:
            new.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}_flatten"))
        nodes = list(model.graph.node)
        nodes[nodes.index(node) : nodes.index(node) + 1] = new
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        _drop_unused_initializer_(model, node.input[1])


def _has_rank_4(model: Any, name: str) -> bool:
    """True where shape inference finds four dimensions; axes 2 and 3 of more mean something else."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {info.name: info for info in [*inferred.value_info, *inferred.input]}
    return name in known and len(known[name].type.tensor_type.shape.dim) == 4


def _drop_unused_initializer_(model: Any, name: str) -> None:
    if any(name in node.input for node in model.graph.node):
        return
    for tensor in model.graph.initializer:
        if tensor.name == name:
            model.graph.initializer.remove(tensor)
            return


def float_operators(model: Any) -> tuple[str, ...]:
    """Compute operators of an INT8 model that are not quantized, as "name (type)".

    An operator runs in integers when ONNX Runtime has an integer kernel for it, all its float inputs come
    from DequantizeLinear and every reader of its output is a QuantizeLinear: only then may the three be
    fused. Anything else computes in float, whatever the file is called.
    """
    import onnx

    producer = {name: node for node in model.graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    infos = [*inferred.value_info, *inferred.input, *inferred.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}

    def is_float(name: str) -> bool:
        return bool(name) and kinds.get(name, onnx.TensorProto.FLOAT) == onnx.TensorProto.FLOAT

    stayed = []
    for node in model.graph.node:
        if node.op_type in MOVES or not any(is_float(name) for name in node.output):
            continue
        fed = all(
            name in producer and producer[name].op_type == "DequantizeLinear"
            for name in node.input
            if is_float(name)
        )
        read = all(
            readers.get(name) and all(reader.op_type == "QuantizeLinear" for reader in readers[name])
            for name in node.output
        )
        if not (fed and read and node.op_type in FUSED_OPERATORS):
            stayed.append(f"{node.name or node.output[0]} ({node.op_type})")
    return tuple(stayed)


def set_metadata_(model: Any, metadata: ArtifactMetadata) -> None:
    """Put the metadata into the model's properties under one key."""
    for entry in list(model.metadata_props):
        if entry.key == METADATA_KEY:
            model.metadata_props.remove(entry)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, metadata.model_dump_json()


def tensor_infos(values: Any) -> tuple[TensorInfo, ...]:
    """Inputs or outputs as the model declares them; a dynamic dimension is -1."""
    import onnx

    infos = []
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        infos.append(TensorInfo(name=value.name, shape=shape, dtype=dtype))
    return tuple(infos)
