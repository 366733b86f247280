"""Quantization ranges that training has learned, kept beside the weights they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from device_bench.storage import write_whole

RANGES_FILE = "ranges.json"
# Samples by whose values a tensor is told.
FINGERPRINT_SAMPLES = 32


class TrainedRange(Record):
    """The range of one tensor, and what tells which one it is.

    Args:
        low, high: zero lies within.
        fingerprint: `fingerprint_of` the tensor over the first calibration samples, before any quantization.
    """

    low: float
    high: float
    fingerprint: tuple[float, float, float, float]


class TrainedRanges(Record):
    """All ranges of one network."""

    ranges: tuple[TrainedRange, ...] = ()


def fingerprint_of(values: np.ndarray) -> tuple[float, float, float, float]:
    """What tells a tensor by its values, whatever its layout: [minimum, maximum, mean, mean of squares]."""
    exact = values.astype(np.float64)
    return float(exact.min()), float(exact.max()), float(exact.mean()), float((exact**2).mean())


def write_ranges(ranges: tuple[TrainedRange, ...], folder: Path) -> None:
    """Keep the ranges beside the module that is saved in `folder`.

    Raises:
        RunError: the file cannot be written.
    """
    content = TrainedRanges(ranges=ranges).model_dump_json(indent=2)
    write_whole(folder / RANGES_FILE, content.encode() + b"\n")


def read_ranges(folder: Path) -> tuple[TrainedRange, ...]:
    """The ranges that belong to the module in `folder`; none where it was not trained for them.

    Raises:
        BadInputError: the file is damaged.
    """
    path = folder / RANGES_FILE
    try:
        return TrainedRanges.model_validate_json(path.read_bytes()).ranges
    except FileNotFoundError:
        return ()
    except (ValidationError, OSError) as error:
        raise BadInputError(
            f"{path} is no file of trained ranges ({error}); recover the plan again, or remove the file"
        ) from error
