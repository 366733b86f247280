"""Which modules are residual blocks, read from the code of their forward pass."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn


def is_residual(module: nn.Module) -> bool:
    """True if the module adds its own input, untouched, to what it computes; an activation may follow."""
    try:
        graph = fx.symbolic_trace(module).graph
    except Exception:
        # What fx cannot follow (control flow on data) is not offered for removal; that is a limit, no error.
        return False
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    return len(inputs) == 1 and any(
        _is_sum(node) and any(_untouched(argument, module) is inputs[0] for argument in node.args)
        for node in graph.nodes
    )


def _is_sum(node: fx.Node) -> bool:
    return node.target in (operator.add, operator.iadd, torch.add) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )


def _untouched(node: object, module: nn.Module) -> object:
    """`node`, or what it stands for if only identities lie between."""
    while isinstance(node, fx.Node) and node.op == "call_module":
        called = module.get_submodule(str(node.target))
        if not isinstance(called, nn.Identity) and not (
            isinstance(called, nn.Sequential) and len(called) == 0
        ):
            break
        node = node.args[0]
    return node
