"""Normalisation folded into its neighbours, in torch: batch norms backwards, layer norms forwards."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
Hook = Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]


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
    folded = _copied(module)
    names = {layer: name for name, layer in folded.named_modules()}
    for conv, norm in norm_pairs(folded, example):
        if isinstance(conv, nn.Linear):
            fused: nn.Module = fuse_linear_bn_eval(conv, norm)
        elif isinstance(conv, nn.Conv2d | nn.Conv1d):
            fused = fuse_conv_bn_eval(conv, norm)
        else:
            continue
        _replace_(folded, names[conv], fused)
        _replace_(folded, names[norm], nn.Identity())
    return folded if _same(module, folded, example) else _copied(module)


def fold_norms(module: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of `module` with batch norms folded, and layer norms' weights too where linear layers read.

    W (gamma * x + beta) + b = (W gamma) x + (W beta + b), so the norm is left without weights of its own. As
    for batch norms, what computes something else when folded (a norm also read elsewhere) stays unfolded.

    Args:
        module: in evaluation mode.
        example: float32 [n, *input_shape].
    """
    whole = fold_batch_norms(module, example)
    folded = copy.deepcopy(whole)
    names = {layer: name for name, layer in folded.named_modules()}
    with torch.no_grad():
        for norm, readers in _readers(folded, example).items():
            for linear in readers:
                shift = linear.weight @ norm.bias
                linear.bias = nn.Parameter(shift if linear.bias is None else linear.bias + shift)
                linear.weight.mul_(norm.weight)
            bare = nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)
            _replace_(folded, names[norm], bare.eval())
    return folded if _same(whole, folded, example) else whole


def _copied(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with its weights laid out as their shapes say.

    Training leaves convolutions channels last, and converters read their memory as if it were not.
    """
    return copy.deepcopy(module).eval().to(memory_format=torch.contiguous_format)


def _same(module: nn.Module, folded: nn.Module, example: torch.Tensor) -> bool:
    """True if both compute the same, but for the order of float32 sums."""
    with torch.no_grad():
        before, after = module(example), folded(example)
    return bool(torch.allclose(before, after, rtol=1e-3, atol=1e-4 * max(1.0, float(before.abs().max()))))


def _readers(module: nn.Module, example: torch.Tensor) -> dict[nn.LayerNorm, list[nn.Linear]]:
    """The linear layers that read each layer norm's output, all of them run once."""
    produced: dict[int, nn.LayerNorm] = {}
    found: dict[nn.LayerNorm, list[nn.Linear]] = {}
    runs: dict[nn.Module, int] = {}
    alive: list[torch.Tensor] = []  # an id is only unique while its tensor lives

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        runs[layer] = runs.get(layer, 0) + 1
        alive.extend((inputs[0], output))
        if isinstance(layer, nn.LayerNorm):
            produced[id(output)] = layer
        elif isinstance(layer, nn.Linear) and id(inputs[0]) in produced:
            found.setdefault(produced[id(inputs[0])], []).append(layer)

    watched(module, example, (nn.LayerNorm, nn.Linear), hook)
    return {
        norm: readers
        for norm, readers in found.items()
        if norm.elementwise_affine and all(runs[layer] == 1 for layer in (norm, *readers))
    }


def watched(module: nn.Module, example: torch.Tensor, kinds: tuple[type[nn.Module], ...], hook: Hook) -> None:
    """Run `module` on `example`; `hook` sees every layer of those kinds."""
    handles = [layer.register_forward_hook(hook) for layer in module.modules() if isinstance(layer, kinds)]
    try:
        with torch.no_grad():
            module(example)
    finally:
        for handle in handles:
            handle.remove()


def norm_pairs(module: nn.Module, example: torch.Tensor) -> list[tuple[nn.Module, nn.Module]]:
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

    watched(module, example, (*BATCH_NORMS, nn.Conv1d, nn.Conv2d, nn.Linear), hook)
    return [pair for pair in pairs if runs[pair[0]] == 1 and runs[pair[1]] == 1]


def _replace_(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)
