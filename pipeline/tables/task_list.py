"""tasks.toml: the tasks to train on, or to hold out, and where their tables are.

    tables = "tables"                 # folder of the tables, seen from this file

    [[task]]
    model = "resnet20"                # zoo name, "module:callable" or an ONNX file
    data = "digits"
    settings = ["local-onnxruntime@1", "local-litert@2"]
    budgets = [{}, {min_speedup = 1.5}]   # what training asks for; without it, any plan is welcome

Tables that are missing are recorded by `edgeloop meta-train`, and tables that lack a setting are timed there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from device_bench.errors import BadInputError
from device_bench.protocol import Record
from pipeline.tables.contest import TableSource
from pipeline.tables.from_experience import HeldBack
from pipeline.tables.order import TableOrder
from pipeline.tables.table_task import TableTask
from pipeline.tables.task_table import TaskTable
from pipeline.task import Budget


class TaskEntry(Record):
    """One `[[task]]`: a table to record, and what to ask for on it."""

    model: str
    data: str
    settings: tuple[str, ...] = Field(min_length=1)
    weights: str | None = None
    plans: int | None = None
    training_samples: int | None = None
    seed: int = 0
    budgets: tuple[Budget, ...] = Field(default=(Budget(),), min_length=1)

    @property
    def order(self) -> TableOrder:
        """What to record where there is no table."""
        given = self.model_dump(exclude={"budgets", "schema_version"}, exclude_none=True)
        return TableOrder.model_validate(given)


class TaskList(Record):
    """A whole tasks.toml."""

    tables: str = "tables"
    task: tuple[TaskEntry, ...] = Field(min_length=1)


def read_task_list(path: Path) -> TaskList:
    """The list in a file; paths in it are seen from the file's folder.

    Raises:
        BadInputError: no such file, no TOML, unknown keys, values that are not allowed, or one task twice.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            f"cannot read the task list {path}: {error.strerror}; give a TOML file with [[task]] tables"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInputError(f"the task list {path} is not valid TOML: {error}") from error
    try:
        found = TaskList.model_validate(given)
        names = [entry.order.name for entry in found.task]
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"])
        raise BadInputError(
            f"{place or 'task'} in the task list {path}: {first['msg']}; got {first['input']!r}: a task has "
            f"{', '.join(n for n in TaskEntry.model_fields if n != 'schema_version')}"
        ) from error
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInputError(
            f"{', '.join(twice)} stands more than once in {path}; give all settings in one [[task]]"
        )
    return _from_anywhere(found, path.parent)


def _from_anywhere(tasks: TaskList, folder: Path) -> TaskList:
    entries = []
    for entry in tasks.task:
        files = {"weights": entry.weights, "model": entry.model if entry.model.endswith(".onnx") else None}
        absolute = {name: str((folder / path).absolute()) for name, path in files.items() if path is not None}
        entries.append(entry.model_copy(update=absolute))
    return tasks.model_copy(
        update={"tables": str((folder / tasks.tables).absolute()), "task": tuple(entries)}
    )


def missing(tasks: TaskList) -> list[TableOrder]:
    """What is still to be recorded."""
    orders = [entry.order for entry in tasks.task]
    return [order for order in orders if not (Path(tasks.tables) / order.file_name).exists()]


def untimed(lists: Sequence[TaskList], *, anew: bool = False) -> dict[Path, tuple[str, ...]]:
    """Tables that are there, and the listed settings that they have no latencies of.

    Args:
        anew: settings that they have latencies of, too.

    Raises:
        BadInputError: a table is damaged.
    """
    wanted: dict[Path, dict[str, None]] = {}
    for tasks in lists:
        for entry in tasks.task:
            path = Path(tasks.tables) / entry.order.file_name
            if path.exists():
                known = () if anew else TaskTable.load(path).header.settings
                wanted.setdefault(path, {}).update(
                    dict.fromkeys(name for name in entry.settings if name not in known)
                )
    return {path: tuple(settings) for path, settings in wanted.items() if settings}


def held_back(held_out: TaskList, trained: TaskList) -> HeldBack:
    """Models, data sets and settings that stand in the held-out list and are trained on nowhere."""
    return HeldBack(
        frozenset(one.model for one in held_out.task) - {one.model for one in trained.task},
        frozenset(one.data for one in held_out.task) - {one.data for one in trained.task},
        frozenset(name for one in held_out.task for name in one.settings)
        - {name for one in trained.task for name in one.settings},
    )


def table_sources(tasks: TaskList, *, probed: bool = True) -> tuple[TableSource, ...]:
    """Every task in every setting, free of budgets: where policies are compared."""
    return tuple(
        TableSource(Path(tasks.tables) / entry.order.file_name, setting, probed=probed)
        for entry in tasks.task
        for setting in entry.settings
    )


def training_tasks(tasks: TaskList) -> list[TableTask]:
    """Every task in every setting under every budget, in the list's order.

    Raises:
        BadInputError: a table is missing or damaged, or lacks a setting.
    """
    found = []
    for entry in tasks.task:
        table = TaskTable.load(Path(tasks.tables) / entry.order.file_name)
        found += [
            TableTask.of(table, setting, budget) for setting in entry.settings for budget in entry.budgets
        ]
    return found
