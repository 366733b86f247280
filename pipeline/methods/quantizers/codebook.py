"""A codebook by k-means: weights become the nearest of K centroids, stored as indices and a table.

Lloyd's algorithm on the line, begun with centroids spread evenly from the smallest to the largest weight,
which keeps the few large ones (Han, Mao and Dally, "Deep Compression", ICLR 2016: 5 bits for dense layers
and 8 for convolutions lost nothing). It makes files smaller and nothing faster: kernels want the weights
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

import torch

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.base import check_bits, checked, packed_bytes, straight_through

BITS = range(1, 9)
ROUNDS = 100


@dataclass(frozen=True)
class Codebook:
    """2^bits centroids for a layer.

    Args:
        bits: of an index, 1 to 8.
    """

    bits: int = 5

    def __post_init__(self) -> None:
        check_bits("codebook", self.bits, BITS)

    @classmethod
    def of(cls, form: WeightForm) -> Codebook:
        """The quantizer of a plan's form."""
        return cls(form.bits)

    def quantize(self, weight: torch.Tensor) -> torch.Tensor:
        """See `base.WeightQuantizer`."""
        values = checked(weight)
        centroids, index = self.clusters(values)
        return straight_through(weight, centroids[index].reshape(values.shape).to(values.dtype))

    def clusters(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Centroids float64 [K], ascending, and the index of each weight's, int64 [n].

        Each weight's centroid is the nearest one, and each centroid the mean of its weights.
        """
        flat = values.detach().double().flatten()
        centroids = torch.linspace(float(flat.min()), float(flat.max()), 2**self.bits, dtype=torch.float64)
        index = _nearest(flat, centroids)
        for _ in range(ROUNDS):
            counts = torch.bincount(index, minlength=len(centroids))
            sums = torch.zeros_like(centroids).index_add_(0, index, flat)
            # A centroid that no weight is nearest to stays where it is.
            centroids = torch.where(counts > 0, sums / counts.clamp_min(1), centroids)
            moved = _nearest(flat, centroids)
            if torch.equal(moved, index):
                break
            index = moved
        return centroids, index

    def stored_bytes(self, weight: torch.Tensor) -> int:
        """Packed indices, and the table."""
        return packed_bytes(weight.numel(), self.bits) + 4 * (1 << self.bits)

    def entropy_bytes(self, weight: torch.Tensor) -> int:
        """What Huffman codes for the indices would take at least (Shannon's bound), and the table."""
        _, index = self.clusters(checked(weight))
        counts = torch.bincount(index).double()
        shares = [float(share) for share in counts[counts > 0] / counts.sum()]
        bits = -sum(share * log2(share) for share in shares) * weight.numel()
        return int(bits / 8) + 1 + 4 * (1 << self.bits)


def _nearest(values: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """The index of the nearest of ascending centroids."""
    return torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)
