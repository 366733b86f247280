"""Cross-layer equalisation: ranges of the weights of neighbouring layers are made alike, channel by channel.

A channel may leave one layer smaller and enter the next larger, s · relu(x / s) = relu(x), without anything
else changing. In depthwise networks some channels' weights are hundreds of times those of others; steps of
8 bits suit both once they are alike. Source: Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.1, with s = sqrt(r1 · r2) / r2 for ranges r1 and r2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pipeline.methods.folding import BATCH_NORMS, watched

# Repeated, since a layer's input and output channels both change its ranges.
MOST_ROUNDS, SETTLED = 20, 1e-3
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
# What scales with its input.
PASSING = (nn.ReLU, nn.Identity, nn.Dropout)


@dataclass(frozen=True)
class Pair:
    """Two layers with nothing between them but a batch norm of the first and a ReLU."""

    first: nn.Module
    norm: nn.Module | None
    second: nn.Module


def equalise_(module: nn.Module, example: torch.Tensor) -> int:
    """Equalise every pair of layers of which nothing else reads what lies between; the number of pairs.

    Args:
        module: in evaluation mode; computes afterwards what it did before, but for the order of sums.
        example: float32 [n, *input_shape].
    """
    pairs = [pair for pair in equal_pairs(module, example) if _stands_alone(pair, module, example)]
    with torch.no_grad():
        for _ in range(MOST_ROUNDS):
            changes = [_scale_(pair, _scales(pair)) for pair in pairs]
            if not changes or max(changes) < SETTLED:
                break
    return len(pairs)


def equal_pairs(module: nn.Module, example: torch.Tensor) -> list[Pair]:
    """Layers that read what another has written, each of them run once."""
    writers: dict[int, tuple[nn.Module, nn.Module | None]] = {}
    found: list[Pair] = []
    runs: dict[nn.Module, int] = {}
    alive: list[torch.Tensor] = []  # an id is only unique while its tensor lives

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        alive.extend((inputs[0], output))
        runs[layer] = runs.get(layer, 0) + 1
        writer = writers.get(id(inputs[0]))
        if isinstance(layer, WEIGHTED):
            if writer is not None and _channels_match(writer[0], layer):
                found.append(Pair(*writer, layer))
            writers[id(output)] = (layer, None)
        elif writer is None:
            return
        elif isinstance(layer, PASSING):
            writers[id(output)] = writer
        elif isinstance(layer, BATCH_NORMS) and writer[1] is None and layer.affine:
            writers[id(output)] = (writer[0], layer)

    watched(module, example, (*WEIGHTED, *BATCH_NORMS, *PASSING), hook)
    return [pair for pair in found if runs[pair.first] == runs[pair.second] == 1]


def _channels_match(first: nn.Module, second: nn.Module) -> bool:
    """True where each channel that enters `second` is one that left `first`, read by itself or by all."""
    if isinstance(first, nn.Linear) != isinstance(second, nn.Linear):
        return False
    groups = getattr(second, "groups", 1)
    wanted: int = getattr(second, "in_channels", getattr(second, "in_features", 0))
    return _weight(first).shape[0] == wanted and groups in (1, wanted)


def _stands_alone(pair: Pair, module: nn.Module, example: torch.Tensor) -> bool:
    """True where scaling the pair changes nothing: nobody else reads what lies between."""
    width = _weight(pair.first).shape[0]
    # Each channel by another power of two, which takes no digit away and is undone exactly.
    scales = 2.0 ** (torch.arange(width) % 3 - 1)
    with torch.no_grad():
        before = module(example)
        _scale_(pair, scales)
        after = module(example)
        _scale_(pair, 1.0 / scales)
    span = max(1.0, float(before.abs().max()))
    return bool(torch.allclose(before, after, rtol=1e-3, atol=1e-4 * span))


def _scales(pair: Pair) -> torch.Tensor:
    """What each channel is divided by on its way out of the first layer; float32 [channels]."""
    first = _weight(pair.first).abs().flatten(1).amax(1)
    if pair.norm is not None:
        first = first * _slope(pair.norm).abs()
    second = _by_input(pair.second).abs().flatten(1).amax(1)
    known = (first > 0) & (second > 0)
    return torch.where(known, (first / second.clamp_min(1e-30)).sqrt(), torch.ones_like(first))


def _scale_(pair: Pair, scales: torch.Tensor) -> float:
    """Divide the first layer's channels by `scales` and multiply the second's; the largest |log s|."""
    if pair.norm is not None:
        told: tuple[torch.Tensor | None, ...] = (pair.norm.weight, pair.norm.bias)
    else:
        told = (_weight(pair.first), pair.first.bias)
    for tensor in told:
        if tensor is not None:
            tensor.div_(scales.view(-1, *(1,) * (tensor.dim() - 1)))
    weight = _weight(pair.second)
    depthwise = getattr(pair.second, "groups", 1) > 1
    by_out, by_in = (-1, *(1,) * (weight.dim() - 1)), (1, -1, *(1,) * (weight.dim() - 2))
    if depthwise:
        # One filter or several for each channel that enters.
        scales = scales.repeat_interleave(weight.shape[0] // scales.numel())
    weight.mul_(scales.view(by_out if depthwise else by_in))
    return float(scales.log().abs().max())


def _slope(norm: nn.Module) -> torch.Tensor:
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None
    return norm.weight / (norm.running_var + norm.eps).sqrt()


def _weight(layer: nn.Module) -> torch.Tensor:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _by_input(layer: nn.Module) -> torch.Tensor:
    """The layer's weights, those of one input channel in each row."""
    weight, groups = _weight(layer), getattr(layer, "groups", 1)
    return weight.reshape(groups, -1) if groups > 1 else weight.transpose(0, 1)
