"""Calibration nets as INT8 TFLite, with the operators that litert-torch and ai-edge-quantizer write."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from exporters.calibration_net import Shape, Value, out_side, random_weights
from exporters.tflite_graph import pack, schema

# Any scales will do: nobody looks at what these nets compute. One for all lets every operator fuse.
SCALE = 0.02
# Not 0, as in any real file: XNNPACK takes a product of two activations only where it is 0.
ZERO_POINT = -5
# The small number that a layer norm adds to a variance. XNNPACK refuses sums of so unlike scales.
TINY_SCALE = 1e-7
# What softmax and sigmoid must give: all of 0 … 1, and nothing below.
UNIT_SCALE = 1 / 256
LOWEST = -128


class TfliteNetBuilder:
    """See `exporters.calibration_net.NetBuilder`. One instance writes one net."""

    def __init__(self, seed: int) -> None:
        self._schema = schema()
        self._rng = np.random.default_rng(seed)
        self._buffers: list[Any] = [self._schema.BufferT()]
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[int, int] = {}
        self._input: int | None = None
        # Tokens by key, as they were before they were turned: features first.
        self._unturned: dict[str | int, Value] = {}

    def picture(self, height: int, width: int, channels: int) -> Value:
        return self._enter((height, width, channels))

    def row(self, features: int) -> Value:
        return self._enter((features,))

    def conv(
        self, x: Value, channels: int, kernel: Shape, stride: int = 1, *, depthwise: bool = False
    ) -> Value:
        height, width, before = x.shape
        sides = tuple(out_side(side, k, stride) for side, k in zip((height, width), kernel, strict=True))
        # The converter says SAME where that is symmetric, and pads beforehand where it is not.
        same = stride == 1 and all(k % 2 for k in kernel)
        if not same:
            x = self._padded(x, kernel)
        shape = (*sides, channels)
        if depthwise or before == 1:
            return self._depthwise(x, shape, kernel, stride, same)
        options = self._schema.Conv2DOptionsT()
        options.padding = self._padding(same)
        options.strideH = options.strideW = stride
        options.fusedActivationFunction = self._schema.ActivationFunctionType.RELU
        weights = [self._weight((channels, *kernel, before), 0), self._bias(channels)]
        return self._result("CONV_2D", [x], weights, shape, options)

    def max_pool(self, x: Value, size: int) -> Value:
        options = self._schema.Pool2DOptionsT()
        options.padding = self._schema.Padding.VALID
        options.strideH = options.strideW = options.filterHeight = options.filterWidth = size
        height, width, channels = x.shape
        return self._result("MAX_POOL_2D", [x], [], (height // size, width // size, channels), options)

    def mean(self, x: Value) -> Value:
        return self._mean(x, (1, 2), (1, 1, x.shape[-1]), keeps=True)

    def add(self, x: Value, y: Value) -> Value:
        options = self._schema.AddOptionsT()
        if len(x.shape) == 3:
            options.fusedActivationFunction = self._schema.ActivationFunctionType.RELU
        return self._result("ADD", [x, y], [], x.shape, options)

    def gated(self, x: Value, gate: Value) -> Value:
        opened = self._result("LOGISTIC", [gate], [], gate.shape, unit=True)
        return self._result("MUL", [x, opened], [], x.shape, self._schema.MulOptionsT())

    def shortcut(self, x: Value, channels: int) -> Value:
        height, width, before = x.shape
        tall = self._strided(x, (-(-height // 2), width, before), (1, 2, 1, 1))
        halved = self._strided(tall, (-(-height // 2), -(-width // 2), before), (1, 1, 2, 1))
        front = (channels - before) // 2
        pads = np.array([[0, 0], [0, 0], [0, 0], [front, channels - before - front]], np.int32)
        return self._result("PAD", [halved], [self._numbers(pads)], (*halved.shape[:2], channels))

    def dense(self, x: Value, features: int) -> Value:
        if len(x.shape) == 3:
            x = self._reshaped(x, (prod(x.shape),))
        return self._linear(x, (features,), relu=True)

    def patches(self, x: Value, features: int, size: int) -> Value:
        height, width, before = x.shape
        sides = (height // size, width // size)
        if before == 1:
            made = self._depthwise(x, (*sides, features), (size, size), size, False)
        else:
            options = self._schema.Conv2DOptionsT()
            options.padding = self._schema.Padding.VALID
            options.strideH = options.strideW = size
            weights = [self._weight((features, size, size, before), 0), self._bias(features)]
            made = self._result("CONV_2D", [x], weights, (*sides, features), options)
        count = prod(sides)
        turned = self._reshaped(self._transposed(made, (features, *sides), (0, 3, 1, 2)), (features, count))
        place = self._constant(random_weights(self._rng, 1, features, count), SCALE)
        moved = self._result("ADD", [turned], [place], turned.shape, self._schema.AddOptionsT())
        tokens = self._transposed(moved, (count, features), (0, 2, 1))
        self._unturned[tokens.key] = moved
        return tokens

    def norm(self, x: Value) -> Value:
        """Layer norm in the converter's thirteen operators."""
        count = x.shape[0]
        scalar = self._constant(np.array(100, np.int8), TINY_SCALE)
        # The converter takes the mean of what was transposed before it is transposed.
        source, axes = (x, (0, 2)) if x.key not in self._unturned else (self._unturned[x.key], (0, 1))
        average = self._mean(source, axes, (count,), keeps=False, batch=False)
        off = self._result("SQUARED_DIFFERENCE", [x, self._reshaped(average, (count, 1))], [], x.shape)
        spread = self._mean(off, (0, 2), (count,), keeps=False, batch=False)
        add, mul, sub = self._schema.AddOptionsT(), self._schema.MulOptionsT(), self._schema.SubOptionsT()
        # The kernel refuses what lies below zero: the lowest integer stands for it here.
        firm = self._result("ADD", [spread], [scalar], (count,), add, batch=False, unit=True)
        inverse = self._result("RSQRT", [firm], [], (count,), batch=False)
        scaled = self._result("MUL", [inverse, average], [], (count,), mul, batch=False)
        shift = self._operator("SUB", [scalar, int(scaled.key)], (count,), sub)
        factor = self._reshaped(inverse, (count, 1))
        stretched = self._result("MUL", [x, factor], [], x.shape, mul)
        return self._result(
            "ADD", [stretched, self._reshaped(Value(shift, (count,)), (count, 1))], [], x.shape, add
        )

    def linear(self, x: Value, features: int) -> Value:
        return self._linear(x, (*x.shape[:-1], features), relu=False)

    def gelu(self, x: Value) -> Value:
        return self._result("GELU", [x], [], x.shape)

    def attention(self, queries: Value, keys: Value, values: Value, heads: int) -> Value:
        tokens, width = values.shape
        q = self._split(queries, heads, (0, 2, 1, 3))
        k = self._split(keys, heads, (0, 2, 3, 1))
        v = self._split(values, heads, (0, 2, 1, 3))
        scores = self._product(q, k)
        four = self._reshaped(scores, scores.shape)
        options = self._schema.SoftmaxOptionsT()
        options.beta = 1.0
        weights = self._result("SOFTMAX", [four], [], four.shape, options, unit=True)
        mixed = self._product(self._flat(weights), v)
        turned = self._transposed(
            self._reshaped(mixed, mixed.shape), (tokens, heads, width // heads), (0, 2, 1, 3)
        )
        key = self._operator(
            "RESHAPE", [int(turned.key), self._numbers(np.array([tokens, width]))], (tokens, width)
        )
        return Value(key, (tokens, width))

    def token_mean(self, x: Value) -> Value:
        return self._mean(x, (1,), (x.shape[-1],), keeps=False)

    def finish(self, x: Value) -> bytes:
        graph = self._schema.SubGraphT()
        graph.tensors, graph.operators = self._tensors, self._operators
        assert self._input is not None
        graph.inputs = np.array([self._input], np.int32)
        graph.outputs = np.array([x.key], np.int32)
        graph.name = b"main"
        model = self._schema.ModelT()
        model.version = 3
        model.buffers, model.subgraphs = self._buffers, [graph]
        model.operatorCodes = []
        for code in self._codes:
            entry = self._schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            model.operatorCodes.append(entry)
        return pack(model)

    def _enter(self, shape: Shape) -> Value:
        self._input = self._tensor((1, *shape), SCALE, ZERO_POINT)
        return Value(self._input, shape)

    def _depthwise(self, x: Value, shape: Shape, kernel: Shape, stride: int, same: bool) -> Value:
        options = self._schema.DepthwiseConv2DOptionsT()
        options.padding = self._padding(same)
        options.strideH = options.strideW = stride
        options.depthMultiplier = shape[-1] // x.shape[-1]
        options.fusedActivationFunction = self._schema.ActivationFunctionType.RELU
        weights = [self._weight((1, *kernel, shape[-1]), 3), self._bias(shape[-1])]
        return self._result("DEPTHWISE_CONV_2D", [x], weights, shape, options)

    def _padding(self, same: bool) -> int:
        return int(self._schema.Padding.SAME if same else self._schema.Padding.VALID)

    def _padded(self, x: Value, kernel: Shape) -> Value:
        if all(k == 1 for k in kernel):
            return x
        pads = np.array([[0, 0], [kernel[0] // 2] * 2, [kernel[1] // 2] * 2, [0, 0]], np.int32)
        height, width, channels = x.shape
        shape = (height + 2 * (kernel[0] // 2), width + 2 * (kernel[1] // 2), channels)
        return self._result("PAD", [x], [self._numbers(pads)], shape)

    def _mean(self, x: Value, axes: Shape, shape: Shape, *, keeps: bool, batch: bool = True) -> Value:
        options = self._schema.ReducerOptionsT()
        options.keepDims = keeps
        return self._result("MEAN", [x], [self._numbers(np.array(axes))], shape, options, batch=batch)

    def _strided(self, x: Value, shape: Shape, strides: Shape) -> Value:
        bounds = [np.zeros(4), np.array([1, *x.shape]), np.array(strides)]
        options = self._schema.StridedSliceOptionsT()
        return self._result("STRIDED_SLICE", [x], [self._numbers(b) for b in bounds], shape, options)

    def _linear(self, x: Value, shape: Shape, *, relu: bool) -> Value:
        options = self._schema.FullyConnectedOptionsT()
        options.keepNumDims = True
        if relu:
            options.fusedActivationFunction = self._schema.ActivationFunctionType.RELU
        weights = [self._weight((shape[-1], x.shape[-1]), 0), self._bias(shape[-1])]
        return self._result("FULLY_CONNECTED", [x], weights, shape, options)

    def _split(self, x: Value, heads: int, order: Shape) -> Value:
        tokens, width = x.shape
        parts = self._reshaped(x, (tokens, heads, width // heads))
        return self._flat(self._transposed(parts, tuple(parts.shape[axis - 1] for axis in order[1:]), order))

    def _flat(self, x: Value) -> Value:
        """[1, heads, …] as [heads, …]: what the converter hands to a batched product."""
        shape = self._numbers(np.array(x.shape))
        return Value(self._operator("RESHAPE", [int(x.key), shape], x.shape), x.shape)

    def _product(self, first: Value, second: Value) -> Value:
        shape = (*first.shape[:-1], second.shape[-1])
        options = self._schema.BatchMatMulOptionsT()
        return self._result("BATCH_MATMUL", [first, second], [], shape, options, batch=False)

    def _reshaped(self, x: Value, shape: Shape) -> Value:
        return self._result("RESHAPE", [x], [self._numbers(np.array([1, *shape]))], shape)

    def _transposed(self, x: Value, shape: Shape, order: Shape) -> Value:
        return self._result("TRANSPOSE", [x], [self._numbers(np.array(order))], shape)

    def _result(
        self,
        kind: str,
        inputs: list[Value],
        constants: list[int],
        shape: Shape,
        options: Any = None,
        *,
        batch: bool = True,
        unit: bool = False,
    ) -> Value:
        sources = [*(int(value.key) for value in inputs), *constants]
        stored = (1, *shape) if batch else shape
        return Value(self._operator(kind, sources, stored, options, unit=unit), shape)

    def _operator(
        self, kind: str, inputs: list[int], shape: Shape, options: Any = None, *, unit: bool = False
    ) -> int:
        result = self._tensor(shape, UNIT_SCALE if unit else SCALE, LOWEST if unit else ZERO_POINT)
        operator = self._schema.OperatorT()
        code = int(getattr(self._schema.BuiltinOperator, kind))
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array([result], np.int32)
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = int(getattr(self._schema.BuiltinOptions, name))
        self._operators.append(operator)
        return result

    def _weight(self, shape: Shape, axis: int) -> int:
        values = random_weights(self._rng, *shape)
        return self._constant(values, np.full(shape[axis], 0.01, np.float32), axis)

    def _bias(self, size: int) -> int:
        return self._constant(np.zeros(size, np.int32), np.full(size, 0.01 * SCALE, np.float32))

    def _numbers(self, values: np.ndarray) -> int:
        return self._constant(np.asarray(values, np.int32), None)

    def _constant(self, values: np.ndarray, scale: Any, axis: int = 0) -> int:
        buffer = self._schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(buffer)
        kinds = {"int8": self._schema.TensorType.INT8, "int32": self._schema.TensorType.INT32}
        index = self._tensor(values.shape, scale, 0, kinds[values.dtype.name])
        self._tensors[index].buffer = len(self._buffers) - 1
        if self._tensors[index].quantization is not None:
            self._tensors[index].quantization.quantizedDimension = axis
        return index

    def _tensor(self, shape: Shape, scale: Any, zero_point: int, kind: int | None = None) -> int:
        tensor = self._schema.TensorT()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = self._schema.TensorType.INT8 if kind is None else kind
        tensor.buffer = 0
        tensor.name = f"tensor_{len(self._tensors)}".encode()
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            parameters = self._schema.QuantizationParametersT()
            parameters.scale, parameters.zeroPoint = scales, np.full(scales.size, zero_point, np.int64)
            tensor.quantization = parameters
        self._tensors.append(tensor)
        return len(self._tensors) - 1
