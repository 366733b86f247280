"""Calibration nets as INT8 ONNX in QDQ form, as `exporters.onnx_int8` makes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from device_bench.errors import MissingExtraError
from exporters.calibration_net import Shape, Value, out_side, random_weights

# Any scales will do: nobody looks at what these nets compute.
SCALE = 0.02
ZERO_POINT = 128
OPSET = 20


class OnnxNetBuilder:
    """See `exporters.calibration_net.NetBuilder`. One instance writes one net."""

    def __init__(self, seed: int) -> None:
        try:
            import onnx
        except ImportError as error:
            raise MissingExtraError("onnx", "pipeline") from error
        self._onnx = onnx
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._input: Any = None
        self._count = 0
        self._constant("scale", np.float32(SCALE))
        self._constant("zero", np.uint8(ZERO_POINT))

    def picture(self, height: int, width: int, channels: int) -> Value:
        return self._enter((channels, height, width), (height, width, channels))

    def row(self, features: int) -> Value:
        return self._enter((features,), (features,))

    def conv(
        self, x: Value, channels: int, kernel: Shape, stride: int = 1, *, depthwise: bool = False
    ) -> Value:
        height, width, before = x.shape
        sides = tuple(out_side(side, k, stride) for side, k in zip((height, width), kernel, strict=True))
        weight = self._weight((channels, 1 if depthwise else before, *kernel), axis=0)
        pads = [kernel[0] // 2, kernel[1] // 2] * 2
        attributes = {"kernel_shape": kernel, "strides": [stride] * 2, "pads": pads}
        groups = before if depthwise else 1
        key = self._quantized("Conv", [x], [weight, self._bias(channels, weight)], group=groups, **attributes)
        return Value(key, (*sides, channels))

    def max_pool(self, x: Value, size: int) -> Value:
        height, width, channels = x.shape
        key = self._quantized("MaxPool", [x], kernel_shape=[size] * 2, strides=[size] * 2)
        return Value(key, (height // size, width // size, channels))

    def mean(self, x: Value) -> Value:
        return Value(self._quantized("GlobalAveragePool", [x]), (1, 1, x.shape[-1]))

    def add(self, x: Value, y: Value) -> Value:
        return Value(self._quantized("Add", [x, y]), x.shape)

    def gated(self, x: Value, gate: Value) -> Value:
        opened = Value(self._quantized("Sigmoid", [gate]), gate.shape)
        return Value(self._quantized("Mul", [x, opened]), x.shape)

    def shortcut(self, x: Value, channels: int) -> Value:
        height, width, before = x.shape
        front = (channels - before) // 2
        far = np.iinfo(np.int64).max
        indices = [np.array(v, np.int64) for v in ([0, 0], [far, far], [2, 3], [2, 2])]
        halved = Value(
            self._quantized("Slice", [x], [self._constant("index", v) for v in indices]),
            (-(-height // 2), -(-width // 2), before),
        )
        pads = np.array([0, front, 0, 0, 0, channels - before - front, 0, 0], np.int64)
        key = self._quantized("Pad", [halved], [self._constant("pads", pads)])
        return Value(key, (*halved.shape[:2], channels))

    def dense(self, x: Value, features: int) -> Value:
        if len(x.shape) == 3:
            x = Value(self._quantized("Flatten", [x]), (int(np.prod(x.shape)),))
        weight = self._weight((features, x.shape[0]), axis=0)
        key = self._quantized("Gemm", [x], [weight, self._bias(features, weight)], transB=1)
        return Value(key, (features,))

    def patches(self, x: Value, features: int, size: int) -> Value:
        height, width, before = x.shape
        weight = self._weight((features, before, size, size), axis=0)
        attributes = {"kernel_shape": [size] * 2, "strides": [size] * 2}
        sides = (height // size, width // size)
        count = sides[0] * sides[1]
        key = self._quantized("Conv", [x], [weight, self._bias(features, weight)], **attributes)
        flat = self._reshaped(Value(key, (*sides, features)), (1, features, count))
        turned = self._quantized("Transpose", [flat], perm=[0, 2, 1])
        return self._shifted(Value(turned, (count, features)), (1, count, features))

    def norm(self, x: Value) -> Value:
        ones = [self._constant("norm", np.ones(x.shape[-1], np.float32)) for _ in range(2)]
        return Value(self._quantized("LayerNormalization", [x], ones, axis=-1), x.shape)

    def linear(self, x: Value, features: int) -> Value:
        weight = self._weight((x.shape[-1], features), axis=1)
        product = Value(self._quantized("MatMul", [x], [weight]), (x.shape[0], features))
        return self._shifted(product, (features,))

    def gelu(self, x: Value) -> Value:
        return Value(self._quantized("Gelu", [x]), x.shape)

    def attention(self, queries: Value, keys: Value, values: Value, heads: int) -> Value:
        tokens, width = values.shape
        q = self._scaled(self._split(queries, heads, [0, 2, 1, 3]))
        k = self._split(keys, heads, [0, 2, 3, 1])
        v = self._split(values, heads, [0, 2, 1, 3])
        scores = Value(self._quantized("MatMul", [q, k]), (heads, tokens, tokens))
        weights = Value(self._quantized("Softmax", [scores], axis=-1), scores.shape)
        mixed = Value(self._quantized("MatMul", [weights, v]), v.shape)
        turned = Value(self._quantized("Transpose", [mixed], perm=[0, 2, 1, 3]), (tokens, width))
        return Value(self._reshaped(turned, (1, tokens, width)).key, (tokens, width))

    def token_mean(self, x: Value) -> Value:
        axes = self._constant("axes", np.array([1], np.int64))
        return Value(self._quantized("ReduceMean", [x], [axes], keepdims=0), (x.shape[-1],))

    def finish(self, x: Value) -> bytes:
        helper = self._onnx.helper
        self._nodes.append(helper.make_node("DequantizeLinear", [str(x.key), "scale", "zero"], ["output"]))
        output = helper.make_tensor_value_info("output", self._onnx.TensorProto.FLOAT, None)
        output.ClearField("type")
        output.type.tensor_type.elem_type = self._onnx.TensorProto.FLOAT
        graph = helper.make_graph(self._nodes, "net", [self._input], [output], self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())

    def _enter(self, stored: Shape, shape: Shape) -> Value:
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        self._input = helper.make_tensor_value_info("input", kinds.FLOAT, (1, *stored))
        return Value(self._quantize("input"), shape)

    def _split(self, x: Value, heads: int, order: list[int]) -> Value:
        tokens, width = x.shape
        parts = self._reshaped(x, (1, tokens, heads, width // heads))
        turned = self._quantized("Transpose", [parts], perm=order)
        return Value(turned, (heads, tokens, width // heads))

    def _scaled(self, x: Value) -> Value:
        factor = self._constant("factor", np.uint8(200))
        return Value(self._quantized("Mul", [x], [self._dequantize(factor)]), x.shape)

    def _shifted(self, x: Value, shape: Shape) -> Value:
        """`x` plus a constant of that shape."""
        shift = self._constant("shift", self._rng.integers(0, 256, shape).astype(np.uint8))
        return Value(self._quantized("Add", [x], [self._dequantize(shift)]), x.shape)

    def _reshaped(self, x: Value, shape: Shape) -> Value:
        target = self._constant("shape", np.array(shape, np.int64))
        return Value(self._quantized("Reshape", [x], [target]), x.shape)

    def _quantized(self, kind: str, inputs: list[Value], others: list[str] = [], **attributes: Any) -> str:  # noqa: B006
        """DequantizeLinear, the operator, QuantizeLinear."""
        sources = [self._dequantize(str(value.key)) for value in inputs]
        result = self._node(kind, [*sources, *others], **attributes)
        return self._quantize(result)

    def _quantize(self, name: str) -> str:
        return self._node("QuantizeLinear", [name, "scale", "zero"])

    def _dequantize(self, name: str) -> str:
        return self._node("DequantizeLinear", [name, "scale", "zero"])

    def _weight(self, shape: Shape, axis: int) -> str:
        """int8 weights, symmetric per channel, and their DequantizeLinear."""
        weight = self._constant("weight", random_weights(self._rng, *shape))
        scales = self._constant("weight_scale", np.full(shape[axis], 0.01, np.float32))
        zeros = self._constant("weight_zero", np.zeros(shape[axis], np.int8))
        return self._node("DequantizeLinear", [weight, scales, zeros], axis=axis)

    def _bias(self, size: int, weight: str) -> str:
        bias = self._constant("bias", np.zeros(size, np.int32))
        scales = self._constant("bias_scale", np.full(size, 0.01 * SCALE, np.float32))
        zeros = self._constant("bias_zero", np.zeros(size, np.int32))
        return self._node("DequantizeLinear", [bias, scales, zeros], axis=0)

    def _node(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = self._fresh(kind)
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _constant(self, kind: str, value: Any) -> str:
        name = kind if kind in ("scale", "zero") else self._fresh(kind)
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"
