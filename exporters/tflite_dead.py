"""Removes from a TFLite graph what nothing reads."""

from __future__ import annotations

from typing import Any

import numpy as np


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
    """Renumber tensors without those that no operator touches, and buffers without those that none holds."""
    graph = model.subgraphs[0]
    needed = needed | set(np.asarray(graph.inputs).tolist())
    for operator in graph.operators:
        needed |= set(np.asarray(operator.outputs).tolist())
    needed.discard(-1)
    kept = sorted(needed)
    new = {-1: -1} | {old: position for position, old in enumerate(kept)}

    def renumbered(indices: Any) -> np.ndarray:
        return np.array([new[int(index)] for index in indices], np.int32)

    for operator in graph.operators:
        operator.inputs, operator.outputs = renumbered(operator.inputs), renumbered(operator.outputs)
    graph.inputs, graph.outputs = renumbered(graph.inputs), renumbered(graph.outputs)
    graph.tensors = [graph.tensors[index] for index in kept]
    for signature in model.signatureDefs or []:
        for entry in [*(signature.inputs or []), *(signature.outputs or [])]:
            entry.tensorIndex = new[entry.tensorIndex]
    _drop_unread_buffers_(model)


def _drop_unread_buffers_(model: Any) -> None:
    holders = [*model.subgraphs[0].tensors, *(model.metadata or [])]
    # Buffer 0 is empty by convention: activations refer to it.
    kept = sorted({0} | {holder.buffer for holder in holders})
    new = {old: position for position, old in enumerate(kept)}
    for holder in holders:
        holder.buffer = new[holder.buffer]
    model.buffers = [model.buffers[index] for index in kept]
