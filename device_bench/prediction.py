"""Runs a loaded model over a stored array of samples, in batches that the file allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_bench.protocol import FailureKind, TensorInfo
from device_bench.runtimes.base import Array, Model, RuntimeFailure, describe, first_lines
from device_bench.tensors import batch_size, dequantize, quantize

# Samples come mapped from a file; looking at a part at a time keeps the rest there.
_CHECKED_AT_ONCE = 256


def predict_file(model: Model, inputs_path: Path, outputs_path: Path) -> int:
    """Read float32 samples [n, ...] from an .npy file and write the outputs, float32 [n, ...], to another.

    Returns:
        The number of samples.

    Raises:
        RuntimeFailure: the model has several inputs or outputs, or the samples do not fit its input.
    """
    outputs = predict(model, _stored_samples(inputs_path))
    np.save(outputs_path, outputs, allow_pickle=False)
    return len(outputs)


def _stored_samples(path: Path) -> NDArray[np.float32]:
    try:
        samples = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OverflowError) as error:  # what numpy raises for a header that lies
        message = f"the samples are no .npy file: {first_lines(error)}"
        raise RuntimeFailure(FailureKind.BAD_INPUT, message) from error
    if not isinstance(samples, np.ndarray):
        raise RuntimeFailure(FailureKind.BAD_INPUT, "the samples are an archive; give one .npy array")
    if samples.dtype != np.float32 or samples.ndim < 2 or len(samples) == 0:
        raise RuntimeFailure(
            FailureKind.BAD_INPUT,
            f"samples must be float32 of shape [n, ...] with n of at least 1; got {samples.dtype} of "
            f"shape {list(samples.shape)}",
        )
    return samples


def predict(model: Model, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Outputs, float32 [n, ...], for samples, float32 [n, ...] in the model's own layout.

    Integer inputs are quantized and integer outputs dequantized by the parameters that the file declares.
    A file with a fixed batch gets its last batch filled up with zeros, whose outputs are dropped.

    Raises:
        RuntimeFailure: the model has several inputs or outputs, or the samples do not fit its input.
    """
    source, sink = _only(model.inputs, "input"), _only(model.outputs, "output")
    _check_fit(samples, source)
    _check_finite(samples)
    step = batch_size(source)
    outputs: NDArray[np.float32] | None = None
    for start in range(0, len(samples), step):
        batch = np.ascontiguousarray(samples[start : start + step])
        result = dequantize(_run(model, quantize(batch, source), source), sink)[: len(batch)]
        if outputs is None:
            outputs = np.empty((len(samples), *result.shape[1:]), dtype=np.float32)
        outputs[start : start + len(batch)] = result
    assert outputs is not None  # the caller gave at least one sample
    return outputs


def _run(model: Model, batch: Array, source: TensorInfo) -> Array:
    missing = source.shape[0] - len(batch)
    if missing > 0:
        batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), batch.dtype)])
    model.set_inputs([batch])
    model.invoke()
    (output,) = model.read_outputs()
    return output


def _only(infos: tuple[TensorInfo, ...], kind: str) -> TensorInfo:
    if len(infos) != 1:
        raise RuntimeFailure(
            FailureKind.UNSUPPORTED,
            f"prediction gives one array and takes one: it needs a model with exactly one {kind}; this one "
            f"has {len(infos)}: {describe(infos)}",
        )
    return infos[0]


def _check_fit(samples: NDArray[np.float32], source: TensorInfo) -> None:
    fits = len(source.shape) == samples.ndim and all(
        want < 0 or want == got for want, got in zip(source.shape[1:], samples.shape[1:], strict=True)
    )
    if not fits:
        raise RuntimeFailure(
            FailureKind.BAD_INPUT,
            f"samples must have the shape of input {describe([source])} behind their first axis; "
            f"got {list(samples.shape)}",
        )


def _check_finite(samples: NDArray[np.float32]) -> None:
    """An integer model would turn a NaN into some number without a word."""
    count, first = 0, -1
    for start in range(0, len(samples), _CHECKED_AT_ONCE):
        wrong = ~np.isfinite(samples[start : start + _CHECKED_AT_ONCE])
        if wrong.any() and first < 0:
            first = start + int(np.argwhere(wrong)[0][0])
        count += int(wrong.sum())
    if count:
        raise RuntimeFailure(
            FailureKind.BAD_INPUT,
            f"{count} of {samples.size} values of the samples are NaN or infinite, the first in sample "
            f"{first}; give finite numbers",
        )
