"""Bias correction: what rounding the weights adds to a layer's outputs on average is taken off its bias.

The error of a layer's output is (W_q − W) x, and its mean over the samples (W_q − W) E[x]. Source: Nagel et
al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with
E[x] taken from calibration samples. At the edges of a picture padding is counted as if it were picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from pipeline.methods.folding import norm_pairs, watched
from pipeline.methods.quantizers.uniform import Uniform

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
INT8 = 8


def correct_biases_(
    module: nn.Module, samples: torch.Tensor, bits: Mapping[str, int] | None = None
) -> dict[str, float]:
    """Correct the bias of every layer that has one, or of the batch norm behind it.

    Args:
        module: in evaluation mode.
        samples: preprocessed, float32 [n, *input_shape].
        bits: of the weights of layers that are not stored in 8.

    Returns:
        The largest correction of each layer.
    """
    norms = dict(norm_pairs(module, samples[:2]))
    means = _input_means(module, samples)
    done = {}
    with torch.no_grad():
        for name, layer in module.named_modules():
            target = norms.get(layer, layer)
            if layer in means and isinstance(target.bias, torch.Tensor):
                shift = _expected_error(layer, norms.get(layer), means[layer], (bits or {}).get(name, INT8))
                target.bias.sub_(shift)
                done[name] = float(shift.abs().max())
    return done


def _input_means(module: nn.Module, samples: torch.Tensor) -> dict[nn.Module, torch.Tensor]:
    """The mean of each channel that enters a layer; layers that run more than once are left out."""
    found: dict[nn.Module, torch.Tensor] = {}
    runs: dict[nn.Module, int] = {}

    def hook(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        runs[layer] = runs.get(layer, 0) + 1
        # Features lie last for a linear layer, channels second for a convolution.
        channels = inputs[0].dim() - 1 if isinstance(layer, nn.Linear) else 1
        found[layer] = inputs[0].mean([axis for axis in range(inputs[0].dim()) if axis != channels])

    watched(module, samples, WEIGHTED, hook)
    return {layer: mean for layer, mean in found.items() if runs[layer] == 1}


def _expected_error(layer: nn.Module, norm: nn.Module | None, mean: torch.Tensor, bits: int) -> torch.Tensor:
    """(W_q − W) E[x] of the layer with its batch norm folded in; float32 [outputs]."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        assert norm.running_var is not None
        slope = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = weight * slope.view(-1, *(1,) * (weight.dim() - 1))
    error = Uniform(bits).quantize(weight) - weight
    by_input = error.flatten(2).sum(2) if error.dim() > 2 else error
    groups = getattr(layer, "groups", 1)
    # [groups, outputs of a group, inputs of a group] × [groups, inputs of a group]
    parts = by_input.view(groups, -1, by_input.shape[1]) * mean.view(groups, 1, -1)
    return parts.sum(2).flatten()
