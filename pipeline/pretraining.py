"""Trains a zoo model that was asked for without weights, once, and keeps the result."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save

from device_bench.storage import write_whole
from pipeline.data.base import Dataset
from pipeline.data.cache import cache_folder
from pipeline.methods.recovery import Lesson, Progress, recover_
from pipeline.methods.views import Views
from pipeline.model import load_model
from pipeline.plan import RecoveryChoice
from pipeline.task import ModelSpec

# Samples seen in all; a small set is seen more often, within the bounds below.
SAMPLES_SEEN = 600_000
FEWEST_EPOCHS, MOST_EPOCHS = 6, 60
RECIPE = RecoveryChoice(alpha=1.0, learning_rate=0.1)


def trained_weights(
    spec: ModelSpec, dataset: Dataset, seed: int, progress: Progress, samples_seen: int | None = None
) -> Path:
    """Path of weights for `spec` on `dataset`, trained now if they are not in the cache.

    The search and test splits take no part. The same model, data, recipe and seed give the same file name.

    Args:
        samples_seen: how many samples training goes through in all, in one to 60 epochs; None for
            `SAMPLES_SEEN`, in six to 60.

    Raises:
        RunError: the cache folder cannot be written.
    """
    name = f"{spec.model_dump_json()}|{dataset.name}|{dataset.fingerprint}|{RECIPE.canonical_json()}|{seed}"
    if samples_seen is not None:
        name += f"|{samples_seen}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    path = (
        cache_folder()
        / "weights"
        / f"{Path(spec.source).name.replace(':', '-')}-{dataset.name}-{digest}.safetensors"
    )
    if path.exists():
        return path
    torch.manual_seed(seed)
    module = load_model(spec)
    fewest, seen = (FEWEST_EPOCHS, SAMPLES_SEEN) if samples_seen is None else (1, samples_seen)
    epochs = min(MOST_EPOCHS, max(fewest, seen / max(1, len(dataset.train))))
    choice = RECIPE.model_copy(update={"epochs": float(round(epochs))})
    recover_(module, Lesson(dataset, Views(dataset, seed), None, choice, seed), progress)
    write_whole(path, save({name: tensor.contiguous() for name, tensor in module.state_dict().items()}))
    return path
