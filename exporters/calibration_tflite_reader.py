"""Which operators a TFLite file has, and of what sizes. What fuses is fused in the file already."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from device_bench.errors import BadInputError
from exporters.tflite_graph import constant, operator_names, schema, unpack
from pipeline.errors import ExportError
from pipeline.latency_model.operators import Operator, invocation

Shape = tuple[int, ...]
BINARY = ("ADD", "MUL", "SUB", "DIV", "SQUARED_DIFFERENCE", "MAXIMUM", "MINIMUM")


def read_tflite(path: Path) -> tuple[Operator, ...]:
    """The operators of a TFLite file's main subgraph, the call itself first.

    Raises:
        BadInputError: it is no TFLite file.
        MissingExtraError: the schema of TFLite is not installed.
    """
    try:
        model = unpack(path.read_bytes())
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}; give a .tflite file") from error
    except ExportError as error:
        raise BadInputError(f"{path}: {error}") from error
    graph = _Graph(model)
    found = [
        graph.operator(operator, kind)
        for operator, kind in zip(model.subgraphs[0].operators, operator_names(model), strict=True)
    ]
    inputs = sum(prod(graph.shape(index)) for index in model.subgraphs[0].inputs)
    outputs = sum(prod(graph.shape(index)) for index in model.subgraphs[0].outputs)
    return (invocation(inputs, outputs), *found)


class _Graph:
    """The main subgraph's tensors."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tensors = model.subgraphs[0].tensors

    def shape(self, index: int) -> Shape:
        return tuple(int(size) for size in self._tensors[index].shape)

    def operator(self, operator: Any, kind: str) -> Operator:
        output = self.shape(operator.outputs[0])
        activations = [self.shape(i) for i in operator.inputs if i >= 0 and not self._is_constant(int(i))]
        sizes: dict[str, Any] = {
            "inputs": sum(prod(shape) for shape in activations),
            "outputs": prod(output),
            "inner": output[-1] if output else 1,
        }
        form = "float" if self._is_float(int(operator.outputs[0])) else ""
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return self._convolution(operator, kind, form, sizes)
        if kind == "FULLY_CONNECTED":
            columns, depth = self.shape(operator.inputs[1])
            rows = sizes["outputs"] // columns
            return Operator(
                kind="dense",
                detail=form,
                weights=columns * depth,
                rows=rows,
                columns=columns,
                depth=depth,
                **sizes,
            )
        if kind == "BATCH_MATMUL":
            batches = prod(output[:-2])
            depth = activations[0][-1]
            return Operator(
                kind="matmul",
                detail=form,
                batches=batches,
                rows=output[-2],
                columns=output[-1],
                depth=depth,
                **sizes,
            )
        detail = " ".join(filter(None, (self._detail(operator, kind, activations), form)))
        return Operator(kind=kind.lower(), detail=detail, **sizes)

    def _convolution(self, operator: Any, kind: str, form: str, sizes: dict[str, Any]) -> Operator:
        weight = self.shape(operator.inputs[1])
        options = operator.builtinOptions
        source = self.shape(operator.inputs[0])[-1]
        depthwise = kind == "DEPTHWISE_CONV_2D"
        columns = weight[3] if depthwise else weight[0]
        groups = 1 if depthwise else source // weight[3]
        # A stem that reads one channel is written as a depthwise convolution of many outputs to an input.
        special = "multiplied" if depthwise and columns > source else "grouped" if groups > 1 else ""
        taps = weight[1] * weight[2]
        return Operator(
            kind="depthwise" if depthwise else "conv",
            detail=" ".join(filter(None, (special, form))),
            weights=prod(weight),
            batches=groups,
            rows=sizes["outputs"] // columns,
            columns=columns // groups,
            depth=taps if depthwise else taps * weight[3],
            taps=taps,
            stride=int(options.strideH * options.strideW),
            **sizes,
        )

    def _detail(self, operator: Any, kind: str, activations: list[Shape]) -> str:
        """What makes this a kernel of its own among those of its type."""
        if kind in BINARY:
            if len(activations) < 2:
                return "constant"
            return "" if prod(activations[0]) == prod(activations[1]) else "broadcast"
        if kind in ("TRANSPOSE", "MEAN", "SUM"):
            return "".join(str(axis) for axis in self._numbers(operator, 1).ravel())
        if kind in ("PAD", "PADV2"):
            pads = self._numbers(operator, 1)
            return "".join(str(axis) for axis in range(len(pads)) if pads[axis].any())
        if kind == "STRIDED_SLICE":
            strides = self._numbers(operator, 3)
            return "".join(str(axis) for axis in range(len(strides)) if strides[axis] != 1)
        if kind in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
            return f"{operator.builtinOptions.filterHeight}x{operator.builtinOptions.filterWidth}"
        return ""

    def _numbers(self, operator: Any, position: int) -> np.ndarray:
        value = constant(self._model, int(operator.inputs[position]))
        return np.zeros(0, np.int32) if value is None else value

    def _is_constant(self, index: int) -> bool:
        data = self._model.buffers[self._tensors[index].buffer].data
        return data is not None and len(data) > 0

    def _is_float(self, index: int) -> bool:
        return bool(self._tensors[index].type == schema().TensorType.FLOAT32)
