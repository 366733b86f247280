"""What a plan may ask of one layer: a lower rank, zeros, another form of its weights, another precision."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from device_bench.protocol import Record

LayerPrecision = Literal["float32", "int8", "int16x8", "int4", "dynamic", "float16"]
WeightMethod = Literal[
    "uniform",
    "network_wide",
    "interval",
    "piecewise",
    "power_of_two",
    "codebook",
    "companding",
    "binary",
    "ternary",
]
Importance = Literal["magnitude", "magnitude_l1", "taylor", "batch_norm", "contribution", "random"]
RecoveryMethod = Literal["full", "last_layers", "layer_wise"]
Matching = Literal["logits", "features", "attention", "gradients"]
Schedule = Literal["constant", "linear", "cubic", "one_cycle"]
Correction = Literal["equalisation", "bias_correction"]
CalibrationMethod = Literal["minmax", "percentile", "entropy", "mse"]
# Every layer that a choice is legal for and that no other choice names.
EVERY = "*"


class LowRank(Record):
    """W ≈ U V by truncated singular value decomposition.

    Args:
        kind: "svd" for a linear layer; of a convolution "spatial" (k × 1, then 1 × k) or "channel" (k × k
            into fewer channels, then 1 × 1).
        rank: how many singular values stay.
        ratio: the same as a share of the matrix's own rank.
        energy: the least share of the squared singular values that must stay; becomes a rank when the plan
            meets the weights.
    """

    kind: Literal["svd", "spatial", "channel"]
    rank: int | None = Field(default=None, ge=1)
    ratio: float | None = Field(default=None, gt=0.0, le=1.0)
    energy: float | None = Field(default=None, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("rank", "ratio", "energy") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"low_rank takes exactly one of rank, ratio and energy; got {', '.join(given) or 'none'}"
            )
        return self


class WeightForm(Record):
    """How a layer's weights are stored; they are computed with as floats, or as INT8 after that.

    Args:
        bits: of one weight, where the method has a choice.
        per_channel: one scale for each output channel, where the method has scales.
    """

    method: WeightMethod
    bits: int = Field(default=8, ge=1, le=16)
    per_channel: bool = True


class LayerChoice(Record):
    """What happens to one layer; what is not given stays as it is.

    They are done in this order, so a factorised layer's two parts are both thinned and both stored in the
    form that is asked for.

    Args:
        low_rank: replace the layer by two smaller ones.
        sparsity: the share of its weights, smallest first, that become zero and stay so.
        soft: shrink the others by the threshold: sign(w) · max(|w| − t, 0).
        weights: the form its weights take.
        precision: of the layer in an exported file; None for the plan's own.
    """

    low_rank: LowRank | None = None
    sparsity: float = Field(default=0.0, ge=0.0, lt=1.0)
    soft: bool = False
    weights: WeightForm | None = None
    precision: LayerPrecision | None = None
