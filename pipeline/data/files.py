"""Opening the files of a data set, with errors that name the file and the way out."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from pipeline.errors import DataError

RENEW = "fetch it again from its source, or point --data-root (or EDGELOOP_DATA) at another folder"


def existing(path: Path) -> Path:
    """`path`, if it is a file.

    Raises:
        DataError: it is not there.
    """
    if not path.is_file():
        raise DataError(f"data file {path} does not exist; {RENEW}")
    return path


def damaged(path: Path, what: object) -> DataError:
    """The error for a file that is there and cannot be used; `what` says in which way."""
    return DataError(f"data file {path} is damaged or of another form: {what}; {RENEW}")


def read_npz(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named arrays of an npz file; nothing in it is ever unpickled.

    Raises:
        DataError: the file is missing or damaged, or lacks an array.
    """
    existing(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise damaged(path, f"no array named {', '.join(missing)}")
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise damaged(path, error) from error


def check_labels(path: Path, labels: np.ndarray, samples: int, classes: int) -> np.ndarray:
    """Labels as int64 [samples], if there is one in 0 … classes - 1 for each sample.

    Raises:
        DataError: another number or type of labels, or a label out of range.
    """
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise damaged(path, f"{samples} samples with labels {labels.dtype} {list(labels.shape)}")
    if samples == 0:
        raise damaged(path, "it holds no sample")
    if labels.min() < 0 or labels.max() >= classes:
        raise damaged(path, f"labels go from {labels.min()} to {labels.max()}, must be 0 to {classes - 1}")
    return labels.astype(np.int64)
