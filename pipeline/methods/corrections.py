"""What a plan asks to be done to trained weights so that they lose less in integers."""

from __future__ import annotations

import torch
from torch import nn

from pipeline.graph import ModelGraph
from pipeline.methods.bias_correction import correct_biases_
from pipeline.methods.equalisation import equalise_
from pipeline.methods.layer_methods import four_bit_layers, layer_choices
from pipeline.plan import CompressionPlan

# Samples that pairs of layers are found by.
PROBE = 2


def make_corrections_(
    module: nn.Module, plan: CompressionPlan, graph: ModelGraph, samples: torch.Tensor
) -> None:
    """Equalise layers and correct biases where the plan asks for it, in this order.

    Args:
        module: what the plan made, trained, in evaluation mode.
        graph: of the original.
        samples: of calibration, preprocessed, float32 [n, *input_shape].
    """
    if "equalisation" in plan.corrections:
        equalise_(module, samples[:PROBE])
    if "bias_correction" in plan.corrections:
        narrow = four_bit_layers(module, layer_choices(plan, graph))
        correct_biases_(module, samples, dict.fromkeys(narrow, 4))
