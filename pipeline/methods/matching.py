"""Distillation from within: a student learns what its teacher computes on the way, not only what it answers.

- features: mean squared error between hidden activations, the student's projected by a learned 1 × 1 where
  widths differ (Romero et al., "FitNets", ICLR 2015), as a share of the teacher's mean square.
- attention: squared distance of the maps Σ_c a², each scaled to length 1 (Zagoruyko and Komodakis, "Paying
  More Attention to Attention", ICLR 2017).
- gradients: squared distance of ∂CE/∂x, student's to teacher's, each scaled to length 1 (the same, section
  3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from device_bench.errors import BadInputError
from pipeline.graph import ModelGraph
from pipeline.layer_choice import Matching

# Loss of a module's outputs against the truth.
TaskLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MOST_PLACES = 4


class Matcher(nn.Module):
    """Watches a student and its teacher and tells how far they are apart.

    Args:
        student, teacher: watched by hooks until `close`.
        places: modules that both have; "gradients" needs none.
        example: float32 [n, *input_shape]; tells the widths.
        task_loss: what "gradients" differentiates.

    Raises:
        BadInputError: there is no place in both that gives a tensor.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        kind: Matching,
        places: Sequence[str],
        example: torch.Tensor,
        task_loss: TaskLoss,
    ) -> None:
        super().__init__()
        self._kind = kind
        self._task_loss = task_loss
        # Lists keep torch from taking them for parts of this module.
        self._students, self._teachers = [student], [teacher.eval()]
        self._seen: dict[tuple[int, str], torch.Tensor] = {}
        self._places = spread_places(places) if kind != "gradients" else []
        self._handles = [
            handle
            for side, module in enumerate((student, teacher))
            for name in self._places
            for handle in (module.get_submodule(name).register_forward_hook(self._hook(side, name)),)
        ]
        self.projections = nn.ModuleDict()
        if kind == "logits" or (kind != "gradients" and not self._places):
            raise BadInputError(f"{kind} cannot be matched: student and teacher have no module in common")
        if kind == "features":
            self._make_projections(example)

    def loss(self, inputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """How far apart they are on the batch that the student has just computed; a scalar with gradient."""
        if self._kind == "gradients":
            return self._gradient_loss(inputs, truth)
        with torch.no_grad():
            self._teachers[0](inputs)
        terms = [self._term(name) for name in self._places]
        return torch.stack(terms).mean()

    def close(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()
        self._seen.clear()

    def _hook(self, side: int, name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        def keep(_: nn.Module, __: object, output: torch.Tensor) -> None:
            self._seen[side, name] = output

        return keep

    def _make_projections(self, example: torch.Tensor) -> None:
        with torch.no_grad():
            for module in (self._students[0], self._teachers[0]):
                was_training = module.training
                module.eval()(example)
                module.train(was_training)
        for name in self._places:
            mine, taught = (_channels(self._seen[side, name]) for side in (0, 1))
            if mine != taught:
                self.projections[name.replace(".", "-")] = nn.Linear(mine, taught, bias=False)

    def _term(self, name: str) -> torch.Tensor:
        mine, taught = self._seen[0, name].float(), self._seen[1, name].detach().float()
        if self._kind == "attention":
            return (attention_map(mine) - attention_map(taught)).square().sum(1).mean()
        key = name.replace(".", "-")
        if key in self.projections:
            mine = _last(mine)
            mine = self.projections[key](mine)
            taught = _last(taught)
        return functional.mse_loss(mine, taught) / taught.square().mean().clamp_min(1e-12)

    def _gradient_loss(self, inputs: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        x = inputs.detach().requires_grad_(True)
        mine, taught = (
            torch.autograd.grad(self._task_loss(module(x), truth), x, create_graph=side == 0)[0]
            for side, module in enumerate((self._students[0], self._teachers[0]))
        )
        apart = functional.normalize(mine.flatten(1)) - functional.normalize(taught.detach().flatten(1))
        return apart.square().sum(1).mean()


def attention_map(activation: torch.Tensor) -> torch.Tensor:
    """Σ_c a² over channels, flattened and scaled to length 1: [n, places].

    Args:
        activation: [n, c, …], channels second, or [n, tokens, c] with channels last.
    """
    axis = 2 if activation.ndim == 3 else 1
    return functional.normalize(activation.square().sum(axis).flatten(1))


def common_places(graph: ModelGraph, student: nn.Module) -> list[str]:
    """Where both compute the same kind of thing: residual blocks that stay, or else layers with weights.

    Args:
        graph: of the teacher.
    """
    there = {name for name, module in student.named_modules() if not isinstance(module, nn.Identity)}
    blocks = [block.name for block in graph.blocks if block.name in there]
    return blocks or [layer.name for layer in graph.layers if layer.name in there]


def spread_places(places: Sequence[str]) -> list[str]:
    """At most `MOST_PLACES` of them, evenly spread, the last one always among them."""
    count = min(MOST_PLACES, len(places))
    return [places[(i + 1) * len(places) // count - 1] for i in range(count)]


def blended(teachers: Sequence[torch.Tensor], weights: Sequence[float], temperature: float) -> torch.Tensor:
    """One teacher's logits in place of several: softmax(result / T) = Σ w · softmax(t / T).

    Args:
        teachers: logits [n, k] of each for the same samples.
        weights: of each; they are scaled to sum to 1.

    Raises:
        BadInputError: numbers of classes or of weights differ, or no weight is above zero.
    """
    if len({tuple(each.shape) for each in teachers}) != 1 or len(weights) != len(teachers):
        shapes = ", ".join(str(list(each.shape)) for each in teachers)
        raise BadInputError(
            f"teachers must answer with the same classes and have a weight each; got {shapes} and "
            f"{len(weights)} weights"
        )
    total = sum(weights)
    if total <= 0.0 or min(weights) < 0.0:
        raise BadInputError(f"teachers' weights must not be below zero, nor all zero; got {list(weights)}")
    shares = torch.tensor(weights, dtype=torch.float32) / total
    softened = torch.stack([functional.softmax(each.float() / temperature, dim=1) for each in teachers])
    mixed = (shares[:, None, None] * softened).sum(0)
    return temperature * mixed.clamp_min(1e-12).log()


def _channels(activation: torch.Tensor) -> int:
    return int(activation.shape[2 if activation.ndim == 3 else 1])


def _last(activation: torch.Tensor) -> torch.Tensor:
    """With channels last, as a 1 × 1 projection by a linear layer wants them."""
    return activation if activation.ndim <= 3 else activation.movedim(1, -1)
