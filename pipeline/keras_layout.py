"""Keras puts channels last; edgeloop's samples have them first."""

from __future__ import annotations

from pipeline.errors import ModelError

Shape = tuple[int, ...]


def channel_order(source: str, taken: tuple[int | None, ...], sample: Shape) -> Shape | None:
    """How a batch of samples is permuted for a Keras model; None if it takes them as they are.

    Pictures are taken to be channels last wherever they can be. Anything else is permuted only where it
    does not fit as it is.

    Args:
        source: names the model in errors.
        taken: shape of one sample as the model takes it; None is any size.
        sample: shape of one sample of the data, channels first.

    Raises:
        ModelError: the samples fit neither way.
    """
    last = (*range(1, len(sample)), 0)
    permuted = tuple(sample[dim] for dim in last)
    order = (0, *(dim + 1 for dim in last))
    fits, fits_permuted = _fits(sample, taken), len(sample) > 1 and _fits(permuted, taken)
    if fits_permuted and (len(sample) == 3 or not fits):
        return order
    if fits:
        return None
    wanted = [size or "any" for size in taken]
    raise ModelError(
        f"{source} takes samples of shape [{', '.join(map(str, wanted))}]; the data's are {list(sample)}, or "
        f"{list(permuted)} with channels last: give a model and data that belong together"
    )


def _fits(shape: Shape, taken: tuple[int | None, ...]) -> bool:
    return len(shape) == len(taken) and all(
        want in (None, size) for size, want in zip(shape, taken, strict=True)
    )
