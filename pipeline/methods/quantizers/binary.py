"""Binary and ternary weights, simulated: their signs, times one number for each output channel.

- Binary: sign(w) · mean|w| (Rastegari et al., "XNOR-Net", ECCV 2016); zero counts as positive.
- Ternary: zero where |w| ≤ 0.7 · mean|w|, elsewhere sign(w) times the mean |w| of those that are left (Li,
  Zhang and Liu, "Ternary Weight Networks", 2016).

The runtimes have no kernels for them: what is saved is size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import by_channel, checked, packed_bytes, straight_through

TERNARY_THRESHOLD = 0.7


@dataclass(frozen=True)
class Binary:
    """One bit a weight, and one float for each group."""

    per_channel: bool = True

    @classmethod
    def of(cls, form: WeightForm) -> Binary:
        """The quantizer of a plan's form."""
        return cls(form.per_channel)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        groups = by_channel(values, self.per_channel)
        sign = torch.where(groups >= 0, 1.0, -1.0)
        found = sign * groups.abs().mean(1, keepdim=True)
        return straight_through(weight, found.reshape(values.shape))

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Signs and means."""
        return packed_bytes(weight.numel(), 1) + 4 * len(by_channel(weight, self.per_channel))


@dataclass(frozen=True)
class Ternary:
    """Two bits a weight, and one float for each group."""

    per_channel: bool = True

    @classmethod
    def of(cls, form: WeightForm) -> Ternary:
        """The quantizer of a plan's form."""
        return cls(form.per_channel)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        groups = by_channel(values, self.per_channel)
        size = groups.abs()
        stays = size > TERNARY_THRESHOLD * size.mean(1, keepdim=True)
        scale = (size * stays).sum(1, keepdim=True) / stays.sum(1, keepdim=True).clamp_min(1)
        return straight_through(weight, (groups.sign() * stays * scale).reshape(values.shape))

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Signs with zeros among them, and means."""
        return packed_bytes(weight.numel(), 2) + 4 * len(by_channel(weight, self.per_channel))
