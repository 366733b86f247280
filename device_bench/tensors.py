"""What goes into a model and comes out of it: random inputs for timing, and affine quantization.

Quantization is q = clip(round(x / scale) + zero_point), x ≈ (q − zero_point) · scale (Jacob et al. 2018,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", eq. 1),
rounding half to even as ONNX's QuantizeLinear does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import FailureKind, TensorInfo
from device_bench.runtimes.base import Array, RuntimeFailure

# Above this many input bytes a larger batch gains nothing and its activations cost memory.
_BATCH_BYTES = 8 << 20
_LARGEST_BATCH = 256


def random_inputs(infos: Sequence[TensorInfo], seed: int) -> list[Array]:
    """One array per input for timing, with an open batch (axis 0) taken as 1.

    Floats are standard normal; quantized integers fill their range; other integers are 0 or 1, which is an
    index that every table has.

    Raises:
        RuntimeFailure: a size other than the batch is open, so there is no telling what to time.
    """
    rng = np.random.default_rng(seed)
    return [_random(info, rng) for info in infos]


def _random(info: TensorInfo, rng: np.random.Generator) -> Array:
    open_axes = [axis for axis, size in enumerate(info.shape) if size < 0 and axis > 0]
    if open_axes:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"input {info.name!r} of shape {list(info.shape)} leaves axis {open_axes[0]} open; only the "
            "batch (axis 0) may be open: export the model with that size fixed",
        )
    shape = tuple(1 if size < 0 else size for size in info.shape)
    dtype = np.dtype(info.dtype)
    if dtype.kind == "f":
        normal: Array = rng.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)
        return normal
    if dtype.kind in "iu" and info.scale is not None:
        limits = np.iinfo(dtype)
        spread: Array = rng.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)
        return spread
    return rng.integers(0, 2, size=shape).astype(dtype)


def quantize(values: NDArray[np.float32], info: TensorInfo) -> Array:
    """Float values as the tensor's dtype wants them; floats pass (as that float dtype).

    Raises:
        RuntimeFailure: an integer tensor that declares no scale.
    """
    dtype = np.dtype(info.dtype)
    if dtype.kind == "f":
        same: Array = values.astype(dtype, copy=False)
        return same
    scale, zero_point = _parameters(info)
    limits = np.iinfo(dtype)
    # The division is made in float64 so that an exact half stays a half for every scale.
    steps = np.rint(values.astype(np.float64) / scale) + zero_point
    whole: Array = np.clip(steps, limits.min, limits.max).astype(dtype)
    return whole


def dequantize(values: Array, info: TensorInfo) -> NDArray[np.float32]:
    """A tensor's values as float32; floats pass.

    Raises:
        RuntimeFailure: an integer tensor that declares no scale.
    """
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    scale, zero_point = _parameters(info)
    return ((values.astype(np.int32) - zero_point) * np.float64(scale)).astype(np.float32)


def _parameters(info: TensorInfo) -> tuple[float, int]:
    if info.scale is None or info.zero_point is None:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"tensor {info.name!r} is {info.dtype} and declares no scale: float values do not map to it",
        )
    return info.scale, info.zero_point


def batch_size(info: TensorInfo) -> int:
    """How many samples to run at a time: the file's own batch, or a large one where it is open."""
    if info.shape[0] > 0:
        return info.shape[0]
    sample_bytes = int(np.prod(info.shape[1:], dtype=np.int64)) * np.dtype(info.dtype).itemsize
    return max(1, min(_LARGEST_BATCH, _BATCH_BYTES // max(1, sample_bytes)))
