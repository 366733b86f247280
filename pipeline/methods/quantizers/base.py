"""What a form of weights is: the values it can tell apart, and the bytes it takes to store them."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from device_bench.errors import BadInputError


class WeightQuantizer(Protocol):
    """A form of weights. Frozen: what it needs of a tensor it finds in the tensor.

    The first dimension of a weight is its output channels.
    """

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """The nearest weights of this form, as floats of the same shape; gradients pass straight through.

        Raises:
            BadInputError: a weight is not finite.
        """
        ...

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """What the form takes to store: packed indices, scales and tables."""
        ...


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
        return quantized.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def straight_through(weight: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """`quantized` in value, to the last bit; `weight` in gradient (Bengio, Léonard and Courville, 2013)."""
    found: torch.Tensor = _StraightThrough.apply(weight, quantized)
    return found


def checked(weight: torch.Tensor) -> torch.Tensor:
    """The weights without their gradient.

    Raises:
        BadInputError: one is not finite.
    """
    values = weight.detach()
    if not torch.isfinite(values).all():
        raise BadInputError(
            f"{int((~torch.isfinite(values)).sum())} of {values.numel()} weights are not finite; look at "
            "what trained them"
        )
    return values


def check_bits(method: str, bits: int, allowed: range) -> None:
    """Nothing, if the method has that number of bits.

    Raises:
        BadInputError: it has not.
    """
    if bits not in allowed:
        raise BadInputError(f"{method} weights have {allowed.start} to {allowed.stop - 1} bits; got {bits}")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` numbers of so many bits, packed."""
    return (count * bits + 7) // 8


def by_channel(values: torch.Tensor, per_channel: bool) -> torch.Tensor:
    """[groups, n]: one group for each output channel, or one in all."""
    alone = per_channel and values.ndim > 1
    return values.reshape(values.shape[0], -1) if alone else values.reshape(1, -1)
