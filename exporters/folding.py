"""Batch normalisation folded into the layer before it, in torch."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold_batch_norms(module: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of `module` in which every batch norm that reads a convolution's output is part of it.

    gamma * (Wx + b - mean) / sqrt(var + eps) + beta is again a convolution (Jacob et al., 2018, section 3.2).
    Pairs are found by running `example`, so names stay as they were and no graph is traced. The module is
    returned unfolded where folding would change what it computes (a convolution whose output is also read
    by something else).

    Args:
        module: in evaluation mode.
        example: float32 [n, *input_shape].
    """
    folded = copy.deepcopy(module).eval()
    names = {layer: name for name, layer in folded.named_modules()}
    for conv, norm in _pairs(folded, example):
        if isinstance(conv, nn.Linear):
            fused: nn.Module = fuse_linear_bn_eval(conv, norm)
        elif isinstance(conv, nn.Conv2d | nn.Conv1d):
            fused = fuse_conv_bn_eval(conv, norm)
        else:
            continue
        _replace_(folded, names[conv], fused)
        _replace_(folded, names[norm], nn.Identity())
    with torch.no_grad():
        before, after = module(example), folded(example)
    # Folding reorders sums of float32; anything beyond that means that a pair was none.
    if torch.allclose(before, after, rtol=1e-3, atol=1e-4 * max(1.0, float(before.abs().max()))):
        return folded
    return copy.deepcopy(module).eval()


def _pairs(module: nn.Module, example: torch.Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolution or linear layer, and the batch norm that reads its output; both run once."""
    produced: dict[int, nn.Module] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []
    runs: dict[nn.Module, int] = {}
    alive: list[torch.Tensor] = []  # an id is only unique while its tensor lives

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        runs[layer] = runs.get(layer, 0) + 1
        alive.append(output)
        if isinstance(layer, BATCH_NORMS):
            if id(inputs[0]) in produced:
                pairs.append((produced[id(inputs[0])], layer))
        else:
            produced[id(output)] = layer

    kinds = (*BATCH_NORMS, nn.Conv1d, nn.Conv2d, nn.Linear)
    handles = [layer.register_forward_hook(hook) for layer in module.modules() if isinstance(layer, kinds)]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if runs[pair[0]] == 1 and runs[pair[1]] == 1]


def _replace_(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)
