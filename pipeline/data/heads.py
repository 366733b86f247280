"""Several tasks answered by one model: which of its outputs belong to which.

A model with heads gives their logits side by side, [n, sum of the heads' classes], and a sample's truth is a
class for each, [n, heads]. Without heads, `()`, outputs and truth are those of one task, as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline.data.base import Dataset, Split

Values = TypeVar("Values", "np.ndarray", "torch.Tensor")


def columns(heads: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the outputs of each head stand; all of them for no heads."""
    if not heads:
        return (slice(None),)
    ends = tuple(accumulate(heads))
    return tuple(slice(end - width, end) for end, width in zip(ends, heads, strict=True))


def by_head(outputs: Values, truth: Values, heads: tuple[int, ...]) -> Iterator[tuple[Values, Values]]:
    """(outputs [n, classes], truth [n]) of each head.

    Args:
        outputs: [n, sum of `heads`].
        truth: [n, heads]; for no heads whatever the task's is.
    """
    if not heads:
        yield outputs, truth
        return
    for number, part in enumerate(columns(heads)):
        yield outputs[:, part], truth[:, number]


def check_heads(dataset: Dataset) -> None:
    """Refuse a data set whose heads do not fit its labels, its metric or its truth.

    Raises:
        DataError: says what does not fit.
    """
    heads, name = dataset.heads, dataset.name
    if min(heads, default=2) < 2:
        raise DataError(
            f"heads of {name} are {list(heads)}; give the number of classes, 2 or more, of each task"
        )
    if heads and dataset.metric != "accuracy":
        raise DataError(
            f"metric of {name} is {str(dataset.metric)!r}; with heads it is accuracy, the mean of theirs"
        )
    if heads and len(dataset.labels) != sum(heads):
        raise DataError(
            f"labels of {name} are {len(dataset.labels)}; its {len(heads)} heads need {sum(heads)}, one "
            "head's after the other's"
        )
    for split in (dataset.train, dataset.search):
        check_truth(name, split, heads)


def check_truth(name: str, split: Split, heads: tuple[int, ...]) -> None:
    """Refuse samples that have not one class of each head; whatever there is without heads.

    Raises:
        DataError: says which head.
    """
    if not heads:
        return
    if split.y.ndim != 2 or split.y.shape[1] != len(heads) or split.y.dtype.kind not in "iu":
        raise DataError(
            f"y of {name} is {split.y.dtype} {list(split.y.shape)}, and it has {len(heads)} heads; give a "
            f"class number for each, [n, {len(heads)}]"
        )
    for head, classes in enumerate(heads):
        given = split.y[:, head]
        if given.min() < 0 or given.max() >= classes:
            bad = given.min() if given.min() < 0 else given.max()
            raise DataError(
                f"y of {name} has class {bad} for head {head}, whose classes are 0 to {classes - 1}"
            )
