"""Arrays from someone's .npz file, which may be anything."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from pipeline.errors import DataError


def read_arrays(path: Path, what: str, form: str) -> dict[str, np.ndarray]:
    """Every array of an .npz file by name.

    Args:
        what: the file in words, for what is said of it: "data file".
        form: what such a file must hold, as an instruction.

    Raises:
        DataError: there is no such file, or it is no .npz, or it is damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise DataError(f"{what} {path} does not exist; {form}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError(f"{path} is a single array; {form}")
        with loaded as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} cannot be read as .npz ({error}); {form}") from error
