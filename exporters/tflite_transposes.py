"""Takes transposes out of a TFLite graph where their neighbour can do without."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.tflite_dead import drop_dead_operators_
from exporters.tflite_graph import add_copy_, constant, give_input_, operator_names, pack, schema, unpack

# Operators that treat every element alike, whatever the order of dimensions.
ELEMENTWISE = frozenset(
    (
        *(
            "ADD",
            "SUB",
            "MUL",
            "DIV",
            "MAXIMUM",
            "MINIMUM",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "LEAKY_RELU",
            "ELU",
        ),
        *(
            "LOGISTIC",
            "TANH",
            "HARD_SWISH",
            "GELU",
            "ABS",
            "NEG",
            "EXP",
            "LOG",
            "SQRT",
            "RSQRT",
            "SQUARE",
            "FLOOR",
        ),
    )
)


def remove_transposes_(model: Any) -> None:
    """Move TRANSPOSE behind operators that can do without it, to where another undoes it or none is needed.

    The converter works channels last but goes back to channels first before it pads channels, adds to such a
    padding, or averages over height and width: each time a pass over the whole activation. The model is
    left as it is where moving would not make them fewer.
    """
    before = operator_names(model).count("TRANSPOSE")
    if before == 0:
        return
    untouched = pack(model)
    _sink_(model)
    _cancel_(model)
    drop_dead_operators_(model)
    if operator_names(model).count("TRANSPOSE") > before:
        model.__dict__.update(unpack(untouched).__dict__)


def _sink_(model: Any) -> None:
    """Let elementwise operators, PAD and MEAN read what a TRANSPOSE reads, and transpose what they make."""
    graph = model.subgraphs[0]
    transposes = _Transposes(model)
    operators = []
    for operator, kind in zip(list(graph.operators), operator_names(model), strict=True):
        operators.append(operator)
        made_by = transposes.of(operator.inputs[0]) if len(operator.inputs) else None
        if kind in ELEMENTWISE or kind == "PAD":
            orders = {
                transposes.order_of(int(index)) for index in operator.inputs[: 1 if kind == "PAD" else None]
            }
            orders.discard(None)
            if len(orders) == 1 and _can_turn(model, transposes, operator, kind):
                operators.append(_turn_(model, transposes, operator, kind, np.array(orders.pop())))
        elif made_by is not None and kind == "MEAN":
            _fold_into_mean_(model, operator, *made_by)
        elif made_by is not None and kind == "RESHAPE":
            transpose, order = made_by
            if _moves_nothing(graph.tensors[transpose.inputs[0]].shape, order):
                operator.inputs[0] = transpose.inputs[0]
    graph.operators = operators


class _Transposes:
    """The TRANSPOSE operators of a graph with a constant order, by the tensor they make."""

    def __init__(self, model: Any) -> None:
        self._made: dict[int, tuple[Any, np.ndarray]] = {}
        for operator, kind in zip(model.subgraphs[0].operators, operator_names(model), strict=True):
            if kind == "TRANSPOSE":
                self.add(model, operator)

    def add(self, model: Any, operator: Any) -> None:
        order = constant(model, operator.inputs[1])
        if order is not None:
            self._made[int(operator.outputs[0])] = (operator, order)

    def of(self, index: int) -> tuple[Any, np.ndarray] | None:
        return self._made.get(int(index))

    def like(self, order: np.ndarray) -> Any:
        """Any TRANSPOSE of that order."""
        return next(made for made, own in self._made.values() if own.tolist() == order.tolist())

    def order_of(self, index: int) -> tuple[int, ...] | None:
        made = self.of(index)
        return tuple(made[1].tolist()) if made else None


def _can_turn(model: Any, transposes: _Transposes, operator: Any, kind: str) -> bool:
    """True where every input is transposed alike, or a constant whose dimensions can be reordered."""
    if kind == "PAD":
        return constant(model, operator.inputs[1]) is not None
    for index in operator.inputs:
        value = constant(model, index)
        if value is None and transposes.of(index) is None:
            return False
        if value is not None and value.ndim not in (0, 4) and value.size != 1:
            return False
    return True


def _turn_(model: Any, transposes: _Transposes, operator: Any, kind: str, order: np.ndarray) -> Any:
    """Let the operator work in the order before the transpose; returns the TRANSPOSE that now follows it."""
    graph = model.subgraphs[0]
    back = np.argsort(order)
    inputs = np.array(operator.inputs, np.int32)
    for position, index in enumerate(inputs):
        made = transposes.of(int(index))
        value = constant(model, int(index))
        if made is not None:
            inputs[position] = made[0].inputs[0]
        elif value is not None and (kind == "PAD" or value.ndim == 4):
            operator.inputs = inputs
            # Row i of the amounts is dimension i; of any other constant, dimension i moves itself.
            turned_value = value[back] if kind == "PAD" else value.transpose(back)
            give_input_(model, operator, position, turned_value)
            inputs = operator.inputs
    operator.inputs = inputs
    result = int(operator.outputs[0])
    turned = graph.tensors[add_copy_(model, result)]
    turned.shape = np.asarray(turned.shape, np.int32)[back]
    turned.shapeSignature = None
    operator.outputs = np.array([len(graph.tensors) - 1], np.int32)
    template = transposes.like(order)
    transpose = schema().OperatorT()
    transpose.__dict__.update(template.__dict__)
    transpose.inputs = np.array([operator.outputs[0], template.inputs[1]], np.int32)
    transpose.outputs = np.array([result], np.int32)
    transposes.add(model, transpose)
    return transpose


def _cancel_(model: Any) -> None:
    """Let readers of a TRANSPOSE that undoes another read what the other reads."""
    transposes = _Transposes(model)
    instead = {}
    for operator, kind in zip(model.subgraphs[0].operators, operator_names(model), strict=True):
        if kind != "TRANSPOSE":
            continue
        first, second = transposes.of(operator.inputs[0]), transposes.of(operator.outputs[0])
        if first and second and (first[1][second[1]] == np.arange(len(first[1]))).all():
            instead[int(operator.outputs[0])] = int(first[0].inputs[0])
    for operator in model.subgraphs[0].operators:
        operator.inputs = np.array([instead.get(int(i), int(i)) for i in operator.inputs], np.int32)


def _fold_into_mean_(model: Any, mean: Any, transpose: Any, order: np.ndarray) -> None:
    axes = constant(model, mean.inputs[1])
    if axes is None or mean.builtinOptions.keepDims:
        return
    left = [axis for position, axis in enumerate(order.tolist()) if position not in axes.ravel().tolist()]
    # What is left after averaging must come in the order the transpose would have given it.
    if left != sorted(left):
        return
    give_input_(model, mean, 1, order[axes.ravel()].astype(np.int32))
    mean.inputs[0] = transpose.inputs[0]


def _moves_nothing(shape: Any, order: np.ndarray) -> bool:
    """True where only dimensions of size 1 change places, so that memory stays as it is."""
    wide = [axis for axis in order.tolist() if shape[axis] != 1]
    return wide == sorted(wide)
