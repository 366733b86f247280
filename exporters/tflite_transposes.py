"""Takes transposes out of a TFLite graph where their neighbour can do without."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporters.tflite_graph import constant, give_constant_, operator_names, schema


def remove_transposes_(model: Any) -> None:
    """Fold TRANSPOSE into a MEAN or RESHAPE that reads it, and drop what nothing reads any more.

    The converter works channels last but asks for channels first before it averages over height and width,
    which costs a pass over the whole activation.
    """
    graph = model.subgraphs[0]
    kinds = operator_names(model)
    producer = {
        index: (op, kind) for op, kind in zip(graph.operators, kinds, strict=True) for index in op.outputs
    }
    for operator, kind in zip(graph.operators, kinds, strict=True):
        made_by = producer.get(operator.inputs[0]) if len(operator.inputs) else None
        if made_by is None or made_by[1] != "TRANSPOSE":
            continue
        transpose = made_by[0]
        order = constant(model, transpose.inputs[1])
        if order is None:
            continue
        if kind == "MEAN":
            _fold_into_mean_(model, operator, transpose, order)
        elif kind == "RESHAPE" and _moves_nothing(graph.tensors[transpose.inputs[0]].shape, order):
            operator.inputs[0] = transpose.inputs[0]
    drop_dead_operators_(model)


def _fold_into_mean_(model: Any, mean: Any, transpose: Any, order: np.ndarray) -> None:
    axes = constant(model, mean.inputs[1])
    if axes is None or mean.builtinOptions.keepDims:
        return
    left = [axis for position, axis in enumerate(order.tolist()) if position not in axes.ravel().tolist()]
    # What is left after averaging must come in the order the transpose would have given it.
    if left != sorted(left):
        return
    _own_tensor_(model, mean, 1)
    give_constant_(model, mean.inputs[1], order[axes.ravel()].astype(np.int32))
    mean.inputs[0] = transpose.inputs[0]


def _moves_nothing(shape: Any, order: np.ndarray) -> bool:
    """True where only dimensions of size 1 change places, so that memory stays as it is."""
    wide = [axis for axis in order.tolist() if shape[axis] != 1]
    return wide == sorted(wide)


def _own_tensor_(model: Any, operator: Any, position: int) -> None:
    """Give an operator a copy of one of its constant inputs; others may read the same tensor."""
    graph = model.subgraphs[0]
    old = graph.tensors[operator.inputs[position]]
    copy = schema().TensorT()
    copy.__dict__.update(old.__dict__)
    copy.name = old.name + b"_own%d" % len(graph.tensors)
    graph.tensors.append(copy)
    inputs = np.array(operator.inputs, np.int32)
    inputs[position] = len(graph.tensors) - 1
    operator.inputs = inputs


def drop_dead_operators_(model: Any) -> None:
    """Remove operators whose outputs nothing reads."""
    graph = model.subgraphs[0]
    needed = set(np.asarray(graph.outputs).tolist())
    kept = []
    for operator in reversed(graph.operators):
        if needed.intersection(np.asarray(operator.outputs).tolist()):
            kept.append(operator)
            needed.update(np.asarray(operator.inputs).tolist())
    graph.operators = kept[::-1]
    _drop_unread_tensors_(model, needed)


def _drop_unread_tensors_(model: Any, needed: set[int]) -> None:
    """Renumber tensors without those that no operator touches; their buffers are emptied."""
    graph = model.subgraphs[0]
    needed = needed | set(np.asarray(graph.inputs).tolist())
    for operator in graph.operators:
        needed |= set(np.asarray(operator.outputs).tolist())
    needed.discard(-1)
    kept = sorted(needed)
    new = {-1: -1} | {old: position for position, old in enumerate(kept)}
    used = {graph.tensors[index].buffer for index in kept} | {entry.buffer for entry in model.metadata or []}
    for index, tensor in enumerate(graph.tensors):
        if index not in needed and tensor.buffer not in used:
            model.buffers[tensor.buffer].data = None

    def renumbered(indices: Any) -> np.ndarray:
        return np.array([new[int(index)] for index in indices], np.int32)

    for operator in graph.operators:
        operator.inputs, operator.outputs = renumbered(operator.inputs), renumbered(operator.outputs)
    graph.inputs, graph.outputs = renumbered(graph.inputs), renumbered(graph.outputs)
    graph.tensors = [graph.tensors[index] for index in kept]
    for signature in model.signatureDefs or []:
        for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
            entry.tensorIndex = new[entry.tensorIndex]
