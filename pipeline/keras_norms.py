"""Batch norms that Keras wrote as sums and products, put together again.

For inference Keras 3 spells x·s + b out, with s = gamma / sqrt(variance + epsilon) and b = beta − mean·s.
Converted like that, s and b end up in the convolutions: a pruned network could not measure its statistics
anew, and one without batch norms is harder to train.

For `pipeline.keras_conversion`, which runs in a process of its own: TensorFlow loads in these functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

SUMS = ("Add", "AddV2")


@dataclass(frozen=True)
class _Norm:
    """The names of what one batch norm is made of; `total` is its last sum, `beta` is None without one."""

    total: str
    x: str
    factor: str
    mean: str
    beta: str | None
    variance: str
    epsilon: str


def restore_norms_(graph: tf.compat.v1.GraphDef, rank: Callable[[str], int | None]) -> None:
    """Replace them by one operator each where they norm pictures, channels last.

    Args:
        graph: without variables.
        rank: of what a node gives, by the node's name.
    """
    nodes = {node.name: node for node in graph.node}
    found = [_norm(node, nodes) for node in graph.node if node.op in SUMS]
    norms = [norm for norm in found if norm is not None and rank(norm.x) == 4]
    if not norms:
        return
    values = _values(graph, norms)
    for norm in norms:
        _replace_(graph, nodes[norm.total], norm, values)


def _norm(node: Any, nodes: dict[str, Any]) -> _Norm | None:
    """The batch norm that ends in `node`, if one does."""
    for product, offset in _both_ways(node):
        if product not in nodes or nodes[product].op != "Mul" or not _fixed(offset, nodes):
            continue
        for x, factor in _both_ways(nodes[product]):
            if _fixed(x, nodes) or not _fixed(factor, nodes):
                continue
            under, shift = _under_root(factor, nodes), _shift(offset, factor, nodes)
            if under is not None and shift is not None:
                return _Norm(node.name, x, factor, *shift, *under)
    return None


def _under_root(factor: str, nodes: dict[str, Any]) -> tuple[str, str] | None:
    """Variance and epsilon, if the factor is made of them, with gamma or without."""
    names = [factor, *_inputs(nodes[factor])] if nodes[factor].op == "Mul" else [factor]
    for root in (nodes[name] for name in names if nodes[name].op == "Rsqrt"):
        (under,) = _inputs(root)
        if nodes[under].op in SUMS:
            variance, epsilon = _inputs(nodes[under])
            return variance, epsilon
    return None


def _shift(offset: str, factor: str, nodes: dict[str, Any]) -> tuple[str, str | None] | None:
    """Mean and beta, if the offset is beta − mean · factor, or −mean · factor."""
    node, beta = nodes[offset], None
    if node.op == "Sub":
        beta, product = _inputs(node)
        node = nodes[product]
    if node.op != "Mul" or factor not in _inputs(node):
        return None
    mean = next(name for name in _inputs(node) if name != factor)
    if beta is not None:
        return mean, beta
    return (_inputs(nodes[mean])[0], None) if nodes[mean].op == "Neg" else None


def _both_ways(node: Any) -> list[tuple[str, str]]:
    first, second = _inputs(node)
    return [(first, second), (second, first)]


def _inputs(node: Any) -> list[str]:
    return [name.removesuffix(":0") for name in node.input]


def _fixed(name: str, nodes: dict[str, Any]) -> bool:
    """Whether a node depends on constants alone."""
    node = nodes.get(name)
    if node is None or node.op == "Placeholder":
        return False
    return node.op == "Const" or (bool(node.input) and all(_fixed(one, nodes) for one in _inputs(node)))


def _values(graph: tf.compat.v1.GraphDef, norms: list[_Norm]) -> dict[str, np.ndarray]:
    """What the parts of all norms come to, each flat, by name."""
    import tensorflow as tf

    names = {
        name
        for norm in norms
        for name in (norm.factor, norm.mean, norm.beta, norm.variance, norm.epsilon)
        if name is not None
    }
    with tf.Graph().as_default() as place:
        tf.import_graph_def(graph, name="")
        with tf.compat.v1.Session(graph=place) as session:
            found = session.run({name: f"{name}:0" for name in names})
    return {name: value.reshape(-1).astype(np.float64) for name, value in found.items()}


def _replace_(graph: tf.compat.v1.GraphDef, node: Any, norm: _Norm, values: dict[str, np.ndarray]) -> None:
    import tensorflow as tf

    variance, epsilon = values[norm.variance], float(values[norm.epsilon][0])
    parts = {
        "gamma": values[norm.factor] * np.sqrt(variance + epsilon),
        "beta": np.zeros(1) if norm.beta is None else values[norm.beta],
        "mean": values[norm.mean],
        "variance": variance,
    }
    names = []
    for part, value in parts.items():
        constant = graph.node.add(name=f"{node.name}/{part}", op="Const")
        filled = np.broadcast_to(value, variance.shape).astype(np.float32)
        constant.attr["dtype"].type = tf.float32.as_datatype_enum
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(filled))
        names.append(constant.name)
    node.op = "FusedBatchNormV3"
    node.input[:] = [norm.x, *names]
    node.attr.clear()
    for kind in ("T", "U"):
        node.attr[kind].type = tf.float32.as_datatype_enum
    node.attr["epsilon"].f = epsilon
    node.attr["data_format"].s = b"NHWC"
    node.attr["is_training"].b = False
