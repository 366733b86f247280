"""How good predictions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.latency_model.records import Errors


def errors_of(predicted: Sequence[float], measured: Sequence[float]) -> Errors:
    """Compare predictions with measurements, both in ms.

    Raises:
        ValueError: there are none, or not as many of the one as of the other.
    """
    if len(predicted) != len(measured) or not measured:
        raise ValueError(
            f"as many predictions as measurements, at least one; got {len(predicted)}, {len(measured)}"
        )
    ratio = np.asarray(predicted, dtype=np.float64) / np.asarray(measured, dtype=np.float64)
    off = np.abs(ratio - 1)
    return Errors(
        nets=len(measured),
        within_5=float(np.mean(off <= 0.05)),
        within_10=float(np.mean(off <= 0.10)),
        within_20=float(np.mean(off <= 0.20)),
        median=float(np.median(off)),
        bias=float(np.median(ratio)) - 1,
        spearman=_spearman(predicted, measured),
    )


def _spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Rank correlation (Spearman, 1904); None where it has no meaning."""
    from scipy.stats import spearmanr

    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    return float(spearmanr(first, second).statistic)
