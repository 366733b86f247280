"""What every form of weights must hold; inherit it and give `make`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod

import pytest
import torch

from device_bench.errors import BadInputError
from pipeline.methods.quantizers.base import WeightQuantizer


def weights(*shape: int, seed: int = 0) -> torch.Tensor:
    """Weights as networks have them: dense at zero, with some large ones."""
    values = torch.distributions.Laplace(0.0, 0.05)
    torch.manual_seed(seed)
    return values.sample(torch.Size(shape))


class QuantizerSuite(ABC):
    """Shapes, values, gradients and sizes."""

    # Bits from coarse to fine; one where there is no choice.
    bits: tuple[int, ...] = (3, 4, 6, 8)
    # Whether what is of the form already stays as it is.
    idempotent = True

    @abstractmethod
    def make(self, bits: int) -> WeightQuantizer: ...

    @property
    def finest(self) -> WeightQuantizer:
        return self.make(self.bits[-1])

    def levels(self, bits: int) -> int:
        """How many values one channel may have."""
        return int(2**bits)

    @pytest.mark.parametrize("shape", [(6, 4, 3, 3), (5, 7), (9,), (1, 1)])
    def test_shape_and_type_stay(self, shape: tuple[int, ...]) -> None:
        given = weights(*shape)
        found = self.finest.quantize(given)
        assert found.shape == given.shape and found.dtype == given.dtype
        assert torch.isfinite(found).all()

    def test_the_tensor_given_is_left_as_it_is(self) -> None:
        given = weights(4, 5)
        before = given.clone()
        self.finest.quantize(given)
        assert torch.equal(given, before)

    def test_no_more_values_than_bits_tell_apart(self) -> None:
        for bits in self.bits:
            for channel in self.make(bits).quantize(weights(3, 400)):
                assert len(torch.unique(channel)) <= self.levels(bits)

    def test_more_bits_lose_less(self) -> None:
        given = weights(8, 50)
        errors = [float((self.make(bits).quantize(given) - given).square().mean()) for bits in self.bits]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < float(given.square().mean())

    def test_what_is_of_the_form_stays(self) -> None:
        if not self.idempotent:
            pytest.skip("a second time finds other parameters, by definition")
        once = self.finest.quantize(weights(6, 40))
        torch.testing.assert_close(self.finest.quantize(once), once, atol=1e-6, rtol=1e-4)

    def test_the_gradient_goes_straight_through(self) -> None:
        given = weights(4, 6).requires_grad_()
        toward = torch.randn(4, 6)
        (self.finest.quantize(given) * toward).sum().backward()
        assert given.grad is not None
        torch.testing.assert_close(given.grad, toward)

    def test_zeros_stay_zeros(self) -> None:
        assert not self.finest.quantize(torch.zeros(3, 4)).any()

    def test_equal_weights(self) -> None:
        found = self.finest.quantize(torch.full((3, 4), 0.5))
        torch.testing.assert_close(found, torch.full((3, 4), 0.5), atol=0.01, rtol=0)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_are_refused(self, bad: float) -> None:
        given = weights(3, 4)
        given[1, 2] = bad
        with pytest.raises(BadInputError, match="1 of 12 weights are not finite"):
            self.finest.quantize(given)

    def test_it_takes_less_than_floats(self) -> None:
        given = weights(16, 16, 3, 3)
        sizes = [self.make(bits).stored_bytes(given) for bits in self.bits]
        assert sizes == sorted(sizes)
        assert sizes[0] < 0.6 * given.numel() * 4

    def test_bits_out_of_range_say_what_is_allowed(self) -> None:
        if not any(field.name == "bits" for field in dataclasses.fields(self.finest)):  # type: ignore[arg-type]
            pytest.skip("has no choice of bits")
        with pytest.raises(BadInputError, match=r"weights have \d to \d+ bits; got 17"):
            self.make(17)
