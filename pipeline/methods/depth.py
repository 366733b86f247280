"""Depth: a residual block leaves whole, and what went into it goes straight on.

A residual block computes x + f(x) with both of one shape, so the identity may stand in for it (Veit et al.,
"Residual Networks Behave Like Ensembles of Relatively Shallow Networks", NeurIPS 2016).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def remove_blocks_(module: nn.Module, blocks: Iterable[str]) -> None:
    """Replace each named block by the identity, in place."""
    for name in blocks:
        parent, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Identity())
