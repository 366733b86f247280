"""Every form passes the suite."""

from __future__ import annotations

from typing import get_args

import pytest
from quantizer_suite import QuantizerSuite

from pipeline.layer_choice import WeightForm, WeightMethod
from pipeline.methods.quantizers import QUANTIZERS, quantizer_for
from pipeline.methods.quantizers.base import WeightQuantizer
from pipeline.methods.quantizers.binary import Binary, Ternary
from pipeline.methods.quantizers.codebook import Codebook
from pipeline.methods.quantizers.companding import Companding
from pipeline.methods.quantizers.interval import Interval
from pipeline.methods.quantizers.piecewise import Piecewise
from pipeline.methods.quantizers.power_of_two import PowerOfTwo
from pipeline.methods.quantizers.uniform import NetworkWide, Uniform


class TestUniform(QuantizerSuite):
    def make(self, bits: int) -> WeightQuantizer:
        return Uniform(bits)


class TestAsymmetric(QuantizerSuite):
    def make(self, bits: int) -> WeightQuantizer:
        return Uniform(bits, per_channel=False, symmetric=False)


class TestNetworkWide(QuantizerSuite):
    def make(self, bits: int) -> WeightQuantizer:
        return NetworkWide(bits)


class TestInterval(QuantizerSuite):
    idempotent = False

    def make(self, bits: int) -> WeightQuantizer:
        return Interval(bits)


class TestPiecewise(QuantizerSuite):
    idempotent = False

    def make(self, bits: int) -> WeightQuantizer:
        return Piecewise(bits)


class TestPowerOfTwo(QuantizerSuite):
    bits = (2, 3, 4, 5)
    # A carried error falls on other weights the second time.
    idempotent = False

    def make(self, bits: int) -> WeightQuantizer:
        return PowerOfTwo(bits)

    def levels(self, bits: int) -> int:
        return int((2**bits - 1) ** 2)


class TestCodebook(QuantizerSuite):
    # Clusters of centroids are fewer than there were.
    idempotent = False

    def make(self, bits: int) -> WeightQuantizer:
        return Codebook(bits)


class TestCompanding(QuantizerSuite):
    idempotent = False

    def make(self, bits: int) -> WeightQuantizer:
        return Companding(bits)


class TestBinary(QuantizerSuite):
    bits = (1,)

    def make(self, bits: int) -> WeightQuantizer:
        return Binary()


class TestTernary(QuantizerSuite):
    bits = (2,)

    def make(self, bits: int) -> WeightQuantizer:
        return Ternary()


@pytest.mark.parametrize("method", get_args(WeightMethod))
def test_a_plan_can_ask_for_each(method: WeightMethod) -> None:
    assert set(QUANTIZERS) == set(get_args(WeightMethod))
    made = quantizer_for(WeightForm(method=method, bits=4))
    assert type(made).__name__ == method.title().replace("_", "")
