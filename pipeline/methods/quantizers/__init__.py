"""Forms that a layer's weights may take, one file each: pure functions with straight-through gradients."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.layer_choice import WeightForm
    from pipeline.methods.quantizers.base import WeightQuantizer

QUANTIZERS: dict[str, str] = {
    "uniform": "pipeline.methods.quantizers.uniform:Uniform",
    "network_wide": "pipeline.methods.quantizers.uniform:NetworkWide",
    "interval": "pipeline.methods.quantizers.interval:Interval",
    "piecewise": "pipeline.methods.quantizers.piecewise:Piecewise",
    "power_of_two": "pipeline.methods.quantizers.power_of_two:PowerOfTwo",
    "codebook": "pipeline.methods.quantizers.codebook:Codebook",
    "companding": "pipeline.methods.quantizers.companding:Companding",
    "binary": "pipeline.methods.quantizers.binary:Binary",
    "ternary": "pipeline.methods.quantizers.binary:Ternary",
}


def quantizer_for(form: WeightForm) -> WeightQuantizer:
    """The quantizer of that form.

    Raises:
        BadInputError: the method has no such number of bits; says which it has.
    """
    module, _, name = QUANTIZERS[form.method].partition(":")
    quantizer: WeightQuantizer = getattr(import_module(module), name).of(form)
    return quantizer
