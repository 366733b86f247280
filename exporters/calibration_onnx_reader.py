"""Which operators ONNX Runtime makes of an ONNX file: fused, laid out anew, and with their shapes.

ONNX Runtime's own optimizer says it: a session writes its optimized graph without running it. What an
optimizer does depends on the machine (layouts do), so the file is read as *this* machine's build of ONNX
Runtime would run it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.errors import BadInputError, MissingExtraError
from pipeline.latency_model.operators import Operator, invocation

Shape = tuple[int, ...]
# Operators that hand on the same bytes under another shape.
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
BINARY = ("QLinearAdd", "QLinearMul", "Add", "Mul", "Sub", "Div")


def read_onnx(path: Path) -> tuple[Operator, ...]:
    """The operators of an ONNX file for one sample, as ONNX Runtime's CPU provider runs them.

    Raises:
        BadInputError: it is no ONNX file that ONNX Runtime loads, or holds an operator of unknown shape.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    return operators_of(optimized(path))


def optimized(path: Path) -> Any:
    """The `onnx.ModelProto` that ONNX Runtime would run for a batch of one."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(str(error.name), "pipeline") from error
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's and onnx's errors share no base but Exception
        raise BadInputError(f"{path} cannot be read as an ONNX file: {error}") from error
    for value in model.graph.input:
        for size in value.type.tensor_type.shape.dim:
            if not size.HasField("dim_value"):
                size.dim_value = 1
    del model.graph.value_info[:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="edgeloop-") as folder:
        target = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(target)
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the binding's exceptions share no base but Exception
            raise BadInputError(f"{path} is not run by ONNX Runtime: {error}") from error
        return onnx.load(target)


def operators_of(model: Any) -> tuple[Operator, ...]:
    """The operators of an optimized graph whose inputs have fixed shapes, the call itself first."""
    graph = _Shapes(model)
    found = []
    for node in model.graph.node:
        graph.infer(node)
        found.append(_operator(node, graph))
    inputs = sum(prod(graph.shape(value.name)) for value in model.graph.input)
    outputs = sum(prod(graph.shape(value.name)) for value in model.graph.output)
    return (invocation(inputs, outputs), *found)


class _Shapes:
    """Shapes of a graph's values, found node by node."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.opsets = list(model.opset_import)
        self.ir_version = model.ir_version
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in model.graph.initializer}
        self._shapes: dict[str, Shape] = {name: tuple(t.dims) for name, t in self.constants.items()}
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            self._shapes[value.name] = tuple(size.dim_value for size in dims)
        self._array: Callable[[Any], np.ndarray] = numpy_helper.to_array

    def shape(self, name: str) -> Shape:
        return self._shapes[name]

    def activations(self, node: Any) -> list[Shape]:
        """Shapes of the inputs that are computed, in order."""
        return [self._shapes[name] for name in node.input if name and name not in self.constants]

    def infer(self, node: Any) -> None:
        rule = _RULES.get(node.op_type) if node.domain == "com.microsoft" else None
        if rule is not None:
            self._shapes[node.output[0]] = rule(node, self)
        elif node.domain == "com.microsoft":
            raise BadInputError(
                f"ONNX Runtime made operator {node.op_type} of this file, which the latency model does not "
                f"know; it knows {', '.join(sorted(_RULES))} beside ONNX's own"
            )
        else:
            self._infer_standard(node)

    def _infer_standard(self, node: Any) -> None:
        import onnx
        from onnx import TensorProto, helper

        inputs = [
            helper.make_tensor_value_info(name, self._kind(node, position), self._shapes[name])
            for position, name in enumerate(node.input)
            if name and name not in self.constants
        ]
        constants = [self.constants[name] for name in node.input if name in self.constants]
        outputs = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in node.output]
        for output in outputs:
            output.ClearField("type")
        graph = helper.make_graph([node], "one", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=self.ir_version)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        for value in inferred.output:
            dims = value.type.tensor_type.shape.dim
            if not value.type.tensor_type.HasField("shape") or any(not d.HasField("dim_value") for d in dims):
                raise BadInputError(
                    f"the shape of {value.name!r}, made by {node.op_type}, does not follow from the file; "
                    "the latency model takes files whose shapes are fixed but for the batch"
                )
            self._shapes[value.name] = tuple(d.dim_value for d in dims)

    def _kind(self, node: Any, position: int) -> int:
        """An element type that the operator takes at this place; shapes do not depend on it."""
        from onnx import TensorProto

        integer = node.op_type in ("DequantizeLinear", "QLinearConv", "QLinearMatMul")
        return int(TensorProto.UINT8 if integer else TensorProto.FLOAT)


def _attribute(node: Any, name: str, otherwise: Any) -> Any:
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return otherwise


def _windowed(node: Any, shapes: _Shapes, kernel: Shape, channels: int) -> Shape:
    """The output of a convolution or pooling; channels last where the node says so."""
    source = shapes.shape(node.input[0])
    last = _attribute(node, "channels_last", 0) or node.op_type == "NhwcMaxPool"
    sides = source[1:-1] if last else source[2:]
    pads = _attribute(node, "pads", [0] * 2 * len(sides))
    strides = _attribute(node, "strides", [1] * len(sides))
    dilations = _attribute(node, "dilations", [1] * len(sides))
    out = tuple(
        (side + pads[i] + pads[i + len(sides)] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, side in enumerate(sides)
    )
    return (source[0], *out, channels) if last else (source[0], channels, *out)


def _convolved(node: Any, shapes: _Shapes) -> Shape:
    weight = shapes.shape(node.input[3])
    return _windowed(node, shapes, weight[2:], weight[0])


def _pooled(node: Any, shapes: _Shapes) -> Shape:
    source = shapes.shape(node.input[0])
    last = _attribute(node, "channels_last", 0) or node.op_type == "NhwcMaxPool"
    kernel = tuple(_attribute(node, "kernel_shape", []))
    return _windowed(node, shapes, kernel, source[-1] if last else source[1])


def _pooled_globally(node: Any, shapes: _Shapes) -> Shape:
    source = shapes.shape(node.input[0])
    ones = (1,) * (len(source) - 2)
    if _attribute(node, "channels_last", 0):
        return (source[0], *ones, source[-1])
    return (*source[:2], *ones)


def _broadcast(node: Any, shapes: _Shapes) -> Shape:
    # Scales and zero points are scalars, which change nothing.
    return tuple(np.broadcast_shapes(*(shapes.shape(name) for name in node.input if name)))


def _gemm(node: Any, shapes: _Shapes) -> Shape:
    first, second = shapes.shape(node.input[0]), shapes.shape(node.input[3])
    rows = first[1] if _attribute(node, "transA", 0) else first[0]
    return (rows, second[0] if _attribute(node, "transB", 0) else second[1])


def _concatenated(node: Any, shapes: _Shapes) -> Shape:
    parts = shapes.activations(node)
    axis = int(_attribute(node, "axis", 0)) % len(parts[0])
    total = sum(part[axis] for part in parts)
    return (*parts[0][:axis], total, *parts[0][axis + 1 :])


_RULES: dict[str, Callable[[Any, _Shapes], Shape]] = {
    "QLinearConv": _convolved,
    "NhwcMaxPool": _pooled,
    "QLinearAveragePool": _pooled,
    "QLinearGlobalAveragePool": _pooled_globally,
    "QLinearAdd": _broadcast,
    "QLinearMul": _broadcast,
    "QLinearSigmoid": _broadcast,
    "QLinearLeakyRelu": _broadcast,
    "QLinearSoftmax": _broadcast,
    "QGemm": _gemm,
    "QLinearConcat": _concatenated,
    "DequantizeLinear": _broadcast,
    "QuantizeLinear": _broadcast,
    "Gelu": _broadcast,
    "FusedConv": lambda node, shapes: _windowed(
        node, shapes, shapes.shape(node.input[1])[2:], shapes.shape(node.input[1])[0]
    ),
}


def _operator(node: Any, shapes: _Shapes) -> Operator:
    output = shapes.shape(node.output[0])
    activations = shapes.activations(node)
    inputs = sum(prod(shape) for shape in activations)
    sizes: dict[str, Any] = {"inputs": inputs, "outputs": prod(output), "inner": output[-1] if output else 1}
    name = node.op_type
    if name in ("QLinearConv", "Conv", "FusedConv"):
        return _convolution(node, shapes, sizes)
    if name in ("QGemm", "Gemm"):
        weight = shapes.shape(node.input[3 if name == "QGemm" else 1])
        depth = weight[1] if _attribute(node, "transB", 0) else weight[0]
        form = "" if name == "QGemm" else "float"
        return Operator(
            kind="dense", detail=form, weights=prod(weight), rows=output[0], columns=output[1], depth=depth,
            **sizes,
        )  # fmt: skip
    if name in ("QLinearMatMul", "MatMul", "MatMulIntegerToFloat"):
        second = node.input[3 if name == "QLinearMatMul" else 1]
        constant = second in shapes.constants
        rows = output[-2] if len(output) > 1 else 1
        batches = prod(output) // (rows * output[-1])
        return Operator(
            kind="matmul",
            detail=("weights" if constant else "") if name == "QLinearMatMul" else "float",
            weights=prod(shapes.shape(second)) if constant else 0,
            batches=1 if constant else batches,
            rows=rows * batches if constant else rows,
            columns=output[-1],
            depth=shapes.shape(node.input[0])[-1],
            **sizes,
        )
    return Operator(
        kind="view" if name in VIEWS else name.lower(), detail=_detail(node, shapes, activations), **sizes
    )


def _convolution(node: Any, shapes: _Shapes, sizes: dict[str, Any]) -> Operator:
    weight = shapes.shape(node.input[3 if node.op_type == "QLinearConv" else 1])
    groups = _attribute(node, "group", 1)
    depthwise = groups > 1 and weight[1] == 1 and weight[0] == groups
    pixels = sizes["outputs"] // weight[0]
    integer = node.op_type == "QLinearConv"
    return Operator(
        kind="depthwise" if depthwise else "conv",
        detail=("" if groups == 1 or depthwise else "grouped") if integer else "float",
        weights=prod(weight),
        batches=1 if depthwise else groups,
        rows=pixels,
        columns=weight[0] if depthwise else weight[0] // groups,
        depth=prod(weight[1:]),
        taps=prod(weight[2:]),
        stride=prod(_attribute(node, "strides", [1])),
        **sizes,
    )


def _detail(node: Any, shapes: _Shapes, activations: list[Shape]) -> str:
    """What makes this a kernel of its own among those of its type."""
    if node.op_type == "Transpose":
        return "".join(str(axis) for axis in _attribute(node, "perm", []))
    if node.op_type in BINARY:
        if len(activations) < 2:
            return "constant"
        return "" if prod(activations[0]) == prod(activations[1]) else "broadcast"
    if node.op_type in ("NhwcMaxPool", "MaxPool", "QLinearAveragePool"):
        return "x".join(str(side) for side in _attribute(node, "kernel_shape", []))
    return ""
