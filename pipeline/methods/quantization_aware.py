"""Quantization-aware training: the forward pass computes with INT8 values, gradients go straight through.

Batch norms are folded first, so that what is trained is what is exported. Every activation that an INT8
file stores has a range, the moving average of what its batches took on; weights have the step of their
largest value, output channel by output channel (Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", CVPR 2018). The ranges go into the file as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from operator import getitem

import numpy as np
import torch
from torch import fx, nn

from pipeline.methods.folding import fold_batch_norms, norm_pairs
from pipeline.methods.quantizers.uniform import Uniform
from pipeline.methods.recovery import Lesson, Progress, recover_
from pipeline.trained_range import TrainedRange, fingerprint_of

# The weight of a new batch in a range's moving average.
MOMENTUM = 0.05
LEVELS = 255
# Its learning rate, as a share of that of the recovery before it: without batch norms behind them, weights
# bear far smaller steps. With ten times as much ResNet-20 on CIFAR-10 diverged within ten steps.
RATE_SHARE = 0.004
WEIGHTED = ("conv1d", "conv2d", "linear")
# Kernels compute these together with what comes before them: that has no tensor of its own.
FUSED_BEHIND = ("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_")
# What only moves values keeps their range.
MOVES = (
    *(
        "view",
        "reshape",
        "flatten",
        "permute",
        "transpose",
        "slice",
        "select",
        "expand",
        "unsqueeze",
        "squeeze",
    ),
    *(
        "contiguous",
        "clone",
        "detach",
        "dropout",
        "max_pool2d",
        "pad",
        "constant_pad_nd",
        "split",
        "chunk",
        "alias",
    ),
    *("split_with_sizes", "unbind", "sym_size", "numel", "to", "_to_copy", "movedim", "t", "unflatten"),
)


class ActivationRange(nn.Module):
    """Quantizes what passes; while training, its range follows the batches."""

    low: torch.Tensor
    high: torch.Tensor
    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("low", "high", "seen"):
            self.register_buffer(name, torch.zeros(()))
        self.bypassed = False
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x in INT8 values; x itself, remembered, while bypassed."""
        if self.bypassed:
            self.last = x.detach()
            return x
        if self.training:
            with torch.no_grad():
                self._follow(x)
        scale, zero = self.parameters_now()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, LEVELS)

    def set_range(self, low: float, high: float) -> None:
        """Have this range from now on."""
        self.low.fill_(low)
        self.high.fill_(high)
        self.seen.fill_(1.0)

    def parameters_now(self) -> tuple[float, int]:
        """Scale and zero point of the range as it stands."""
        low, high = float(self.low), float(self.high)
        scale = max((high - low) / LEVELS, 1e-12)
        return scale, round(-low / scale)

    def _follow(self, x: torch.Tensor) -> None:
        # A range always holds zero, so that padding is exact.
        low, high = x.amin().clamp_max(0.0), x.amax().clamp_min(0.0)
        share = MOMENTUM if bool(self.seen) else 1.0
        self.low.lerp_(low.float(), share)
        self.high.lerp_(high.float(), share)
        self.seen.fill_(1.0)


class WeightStep(nn.Module):
    """Quantizes a weight, output channel by output channel."""

    def __init__(self) -> None:
        super().__init__()
        self._form = Uniform(8)
        self.bypassed = False

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight in INT8 values; itself while bypassed."""
        return weight if self.bypassed else self._form.quantize(weight)


class AwareModule(nn.Module):
    """A folded copy of a module that computes as its INT8 file will.

    Args:
        module: in evaluation mode; left as it is.
        example: float32 [n, *input_shape], n at least 2.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor) -> None:
        super().__init__()
        self._pairs = _pair_names(module, example)
        folded = fold_batch_norms(module, example)
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(folded, (example,), dynamic_shapes=({0: batch},))
        self.graph_module = _instrumented(program.module())
        for tensor in self.graph_module.parameters():
            # Folding makes biases that nothing was meant to train.
            tensor.requires_grad_(True)
        steps = self.graph_module.named_modules()
        self.points = [name for name, found in steps if isinstance(found, ActivationRange)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the INT8 file gives, but for the rounding of sums."""
        result: torch.Tensor = self.graph_module(x)
        return result

    def trained_ranges(self, samples: torch.Tensor) -> tuple[TrainedRange, ...]:
        """The ranges as they stand, and what tells which tensors of an exported file they are of.

        Args:
            samples: the first calibration samples, as the file will be calibrated by.
        """
        values = self.plain_values(samples)
        found = []
        for name in self.points:
            point = self.point(name)
            print_of = fingerprint_of(values[name])
            found.append(TrainedRange(low=float(point.low), high=float(point.high), fingerprint=print_of))
        return tuple(found)

    def point(self, name: str) -> ActivationRange:
        """One of `points`."""
        found = self.graph_module.get_submodule(name)
        assert isinstance(found, ActivationRange)
        return found

    def label(self, name: str) -> str:
        """The layer whose result a point is, by its name in the module, or else the operator."""
        (node,) = [each for each in self.graph_module.graph.nodes if each.target == name]
        source = node.args[0]
        within = list(source.meta.get("nn_module_stack", {}).values())
        return str(within[-1][0] if within and within[-1][0] else source.name)

    def write_back_(self, module: nn.Module) -> None:
        """Give the trained weights to the module that this was made of; its batch norms then do nothing."""
        trained = dict(self.graph_module.named_parameters())
        own = dict(module.named_parameters())
        with torch.no_grad():
            for name, tensor in own.items():
                if name in trained:
                    tensor.copy_(trained[name])
            for layer, norm in self._pairs:
                _quiet_(module.get_submodule(layer), module.get_submodule(norm), trained[f"{layer}.bias"])

    def plain_values(self, samples: torch.Tensor) -> dict[str, np.ndarray]:
        """What every point sees while nothing is quantized."""
        steps = [m for m in self.graph_module.modules() if isinstance(m, ActivationRange | WeightStep)]
        for step in steps:
            step.bypassed = True
        try:
            with torch.no_grad():
                self.eval()(samples)
            return {name: self.graph_module.get_submodule(name).last.numpy() for name in self.points}
        finally:
            for step in steps:
                step.bypassed = False


def _pair_names(module: nn.Module, example: torch.Tensor) -> list[tuple[str, str]]:
    probe = copy.deepcopy(module).eval()
    names = {layer: name for name, layer in probe.named_modules()}
    return [(names[layer], names[norm]) for layer, norm in norm_pairs(probe, example)]


def _quiet_(layer: nn.Module, norm: nn.Module, bias: torch.Tensor) -> None:
    """Let the norm add the bias that folding has made, and nothing else."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    own = layer.bias
    if isinstance(own, torch.Tensor):
        own.zero_()
    for tensor, value in ((norm.weight, 1.0), (norm.running_mean, 0.0), (norm.running_var, 1.0 - norm.eps)):
        assert tensor is not None
        tensor.fill_(value)
    norm.bias.copy_(bias)


def _instrumented(exported: fx.GraphModule) -> fx.GraphModule:
    """The graph with a step behind every weight and a range behind every tensor that a file stores."""
    graph = exported.graph
    for node in list(graph.nodes):
        if node.op == "call_module" and node.target == "_guards_fn":
            graph.erase_node(node)
        elif node.op == "call_function" and _kind(node) in WEIGHTED:
            _insert(exported, node.args[1], WeightStep(), [node])
    for node in list(graph.nodes):
        if _is_stored(node):
            _insert(exported, node, ActivationRange(), list(node.users))
    graph.lint()
    # A module of its own: what torch.export gives refuses to be trained.
    return fx.GraphModule(exported, graph)


def _is_stored(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not node.users:
        return False
    if node.op == "placeholder":
        return True
    if node.op != "call_function" or node.target is getitem or _kind(node) in MOVES:
        return False
    return not all(_kind(user) in FUSED_BEHIND for user in node.users)


def _kind(node: fx.Node) -> str:
    """The operator's name: "conv2d" of aten.conv2d.default."""
    return (
        str(getattr(node.target, "__name__", node.target)).split(".")[0] if node.op == "call_function" else ""
    )


def _insert(module: fx.GraphModule, node: fx.Node, step: nn.Module, users: Sequence[fx.Node]) -> None:
    """Let `users` read what the step makes of the node."""
    name = f"step_{sum(1 for _ in module.children())}"
    module.add_submodule(name, step)
    with module.graph.inserting_after(node):
        made = module.graph.call_module(name, (node,))
    for user in users:
        user.replace_input_with(node, made)


def train_aware_(
    module: nn.Module, lesson: Lesson, samples: torch.Tensor, thinned: Collection[str], progress: Progress
) -> tuple[TrainedRange, ...]:
    """Train a module for INT8, in place; the ranges that its file must have.

    Args:
        lesson: its choice's `quantization_epochs` count.
        samples: the first calibration samples, float32 [n, *input_shape].
        thinned: layers whose zeros stay zeros.
    """
    choice = lesson.choice
    update = {"epochs": choice.quantization_epochs, "learning_rate": RATE_SHARE * choice.learning_rate}
    aware = AwareModule(module, samples)
    for name, tensor in aware.graph_module.named_parameters():
        if name.removesuffix(".weight") in thinned:
            # Of what has no gradient, neither momentum nor weight decay makes anything.
            tensor.register_hook(partial(torch.mul, (tensor.detach() != 0).float()))
    recover_(aware, replace(lesson, choice=choice.model_copy(update=update), exact=True), progress)
    aware.write_back_(module)
    return aware.trained_ranges(samples)
