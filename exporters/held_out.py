"""A list of held-out tasks in TOML: anyone's models and data, to be tried for real.

[[task]]
model = "mine.onnx"           # ONNX file, "module:callable" or a zoo name
weights = "mine.safetensors"  # for the latter two; a zoo model is trained without
data = "mine.npz"             # .npz file (pipeline/data/npz.py), "module:callable" or a data set's name
target = "local-litert"
threads = 1
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from exporters.workbench_task import HeldOutTask, WorkbenchSource, seen_from
from pipeline.target import find_target


class HeldOutList(Record):
    """The file as a whole."""

    task: tuple[HeldOutTask, ...] = Field(min_length=1)


def held_out_sources(
    path: Path, folder: Path, data_root: Path | None, *, probed: bool
) -> tuple[WorkbenchSource, ...]:
    """The tasks of a list; trials are kept in `folder`.

    Raises:
        BadInputError: no such file, no TOML, unknown keys, an unknown target, or one task twice.
    """
    try:
        given = HeldOutList.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInputError(
            f"cannot read {path}: {error.strerror}; give a TOML file with [[task]] tables"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        keys = ", ".join(name for name in HeldOutTask.model_fields if name != "schema_version")
        raise BadInputError(
            f"{place} in {path}: {first['msg']}; got {first['input']!r}: a task has {keys}"
        ) from error
    names = [task.name for task in given.task]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInputError(f"{', '.join(twice)} stands more than once in {path}; give each task once")
    for task in given.task:
        find_target(task.target)
    return tuple(
        WorkbenchSource(task, folder, data_root, probed) for task in seen_from(given.task, path.parent)
    )
