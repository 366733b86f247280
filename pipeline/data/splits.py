"""Carving a search split from a training set, and telling one data set from another."""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.data.base import Split
from pipeline.errors import DataError


def stratified_indices(labels: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices (kept, held out), both ascending, with every class held out in its share.

    Args:
        labels: class of each sample, [n].
        held_out: how many samples to hold out in all.
        seed: which samples of each class are taken.

    Raises:
        DataError: nothing would be left to keep, or nothing to hold out.
    """
    if not 0 < held_out < len(labels):
        raise DataError(
            f"cannot hold {held_out} of {len(labels)} samples out; give a data set with more samples"
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    # Rank of each sample within its class, as a share of the class: taking the lowest shares takes the
    # same share of every class, and exactly `held_out` samples.
    share = np.empty(len(labels))
    for value in np.unique(labels):
        members = shuffled[labels[shuffled] == value]
        share[members] = (np.arange(len(members)) + 0.5) / len(members)
    order = np.argsort(share, kind="stable")
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def carve(full: Split, held_out: int, seed: int) -> tuple[Split, Split]:
    """(train, search): `held_out` samples of `full`, seeded and stratified, become the search split.

    With several heads every combination of their classes is held out in its share.
    """
    classes = full.y if full.y.ndim == 1 else np.unique(full.y, axis=0, return_inverse=True)[1].ravel()
    kept, held = stratified_indices(classes, held_out, seed)
    return full.take(kept), full.take(held)


def fingerprint(name: str, train: Split, search: Split) -> str:
    """Twelve hex digits from the name, the shapes and the labels: equal data has equal ones."""
    digest = hashlib.sha256(f"{name}|{train.x.shape}|{search.x.shape}".encode())
    for labels in (train.y, search.y):
        digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()[:12]
