"""Batch-norm re-estimation: the statistics of a cut network, measured anew.

Pruning shifts what each layer sees; running means and variances of the original no longer fit. They are
replaced by the average over a sample of training data (Li et al., "EagleEye", ECCV 2020).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.data.base import Preprocessing

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def reestimate_(
    module: nn.Module, samples: np.ndarray, preprocessing: Preprocessing, batch: int = 250
) -> None:
    """Replace every batch norm's running statistics by those over `samples`, in place.

    Args:
        samples: raw training samples [n, ...]; about 1,000 are enough.
        batch: samples in one pass; the statistics are the plain mean over passes.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, NORMS)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = module.training
    # Only the norms are in training mode: what dropout lets through is not what they will see in use.
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for start in range(0, len(samples), batch):
            inputs = torch.from_numpy(preprocessing.apply(samples[start : start + batch]))
            if len(inputs) > 1:
                module(_channels_last(inputs))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.train(was_training)


def _channels_last(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
