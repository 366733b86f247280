"""Shapes of a TFLite graph whose constants were replaced by narrower ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from exporters.tflite_graph import constant, give_input_, pack
from exporters.traced_onnx import TraceError

_FAILED_RESHAPE = re.compile(r"Node number (\d+) \(RESHAPE\)")


def settle_shapes_(model: Any) -> None:
    """Let LiteRT derive every activation's shape from the inputs and constants, and note it in the file.

    A reshape says its output's shape in full. Where that no longer fits its input, what it joined or split is
    found in its old shapes, and the new one follows.

    Raises:
        TraceError: LiteRT refuses the graph.
    """
    graph = model.subgraphs[0]
    for _ in range(len(graph.operators) + 1):
        interpreter = _unallocated(pack(model))
        try:
            interpreter.allocate_tensors()
            break
        except (RuntimeError, ValueError) as error:
            failed = _FAILED_RESHAPE.search(str(error))
            if failed is None or not _reshape_anew_(graph.operators[int(failed[1])], model, interpreter):
                raise TraceError(f"LiteRT refuses the adapted graph: {error}") from error
    constants = {index for index in range(len(graph.tensors)) if constant(model, index) is not None}
    for detail in interpreter.get_tensor_details():
        index = detail["index"]
        if index < len(graph.tensors) and index not in constants:
            graph.tensors[index].shape = np.asarray(detail["shape"], np.int32)


def _reshape_anew_(operator: Any, model: Any, interpreter: Any) -> bool:
    """Write the shape that a reshape gives now; False if it cannot be told, or is as it was."""
    tensors = model.subgraphs[0].tensors
    source, target = int(operator.inputs[0]), int(operator.inputs[1])
    shapes = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    old_result = constant(model, target)
    if old_result is None:
        return False
    found = reshaped(list(tensors[source].shape), list(old_result), list(shapes[source]))
    if found is None or found == list(old_result):
        return False
    give_input_(model, operator, 1, np.asarray(found, old_result.dtype))
    return True


def reshaped(before: Sequence[int], result: Sequence[int], now: Sequence[int]) -> list[int] | None:
    """What a reshape of `before` into `result` makes of `now`, which differs from `before` in some sizes.

    Both shapes fall into the shortest runs of dimensions with equal products. Within a run, dimensions are
    joined into their product, or one is split, and then the last part takes the change: a head of attention
    narrows, and there are as many heads as before.

    Returns:
        The shape, or None where a size cannot be split like that.
    """
    found: list[int] = []
    i = j = 0
    while i < len(before) or j < len(result):
        start, first = i, j
        i, j = min(i + 1, len(before)), min(j + 1, len(result))
        while prod(before[start:i]) != prod(result[first:j]):
            if prod(before[start:i]) < prod(result[first:j]):
                i += 1
            else:
                j += 1
            if i > len(before) or j > len(result):
                return None
        new, parts = prod(now[start:i]), list(result[first:j])
        if new != prod(before[start:i]):
            wide = [place for place, size in enumerate(parts) if size > 1]
            if not wide:
                return None
            others = prod(size for place, size in enumerate(parts) if place != wide[-1])
            if new % others:
                return None
            parts[wide[-1]] = new // others
        found += parts
    return [int(size) for size in found]


def plain_interpreter(content: bytes) -> Any:
    """LiteRT's own kernels on one thread, which keep every activation."""
    interpreter = _unallocated(content)
    interpreter.allocate_tensors()
    return interpreter


def _unallocated(content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    return Interpreter(
        model_content=content,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
