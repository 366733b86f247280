from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from device_bench.errors import BadInputError
from pipeline.tables.task_table import TaskTable, effects_of

RECORDED = Path(__file__).parents[3] / "policies" / "tables" / "mlp-digits.safetensors"


@pytest.fixture(scope="module")
def table() -> TaskTable:
    return TaskTable.load(RECORDED)


def test_comes_back_as_it_was_saved(table: TaskTable, tmp_path: Path) -> None:
    table.save(tmp_path / "t.safetensors")
    again = TaskTable.load(tmp_path / "t.safetensors")
    assert again.header == table.header
    assert np.array_equal(again.options, table.options)
    assert np.array_equal(again.accuracy, table.accuracy, equal_nan=True)
    for name, column in table.latency_ms.items():
        assert np.array_equal(again.latency_ms[name], column, equal_nan=True)


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    path.write_bytes(RECORDED.read_bytes()[:1000])
    with pytest.raises(BadInputError, match=r"half\.safetensors is no table"):
        TaskTable.load(path)


def test_a_foreign_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file(load_file(RECORDED), path)
    with pytest.raises(BadInputError, match=r"foreign\.safetensors is no table"):
        TaskTable.load(path)


def test_another_schema_version_is_refused(table: TaskTable, tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    replace(table, header=table.header.model_copy(update={"schema_version": 99})).save(path)
    with pytest.raises(BadInputError, match=r"newer\.safetensors is no table"):
        TaskTable.load(path)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="edgeloop meta-train"):
        TaskTable.load(tmp_path / "none.safetensors")


def test_columns_of_different_lengths_are_refused(table: TaskTable, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    replace(table, accuracy=table.accuracy[:-1]).save(path)
    with pytest.raises(BadInputError, match="does not hold together"):
        TaskTable.load(path)


def test_effects_are_those_of_rows_with_one_change(table: TaskTable) -> None:
    settings = list(table.header.settings)
    effects = effects_of(table, settings)
    single = table.accuracy[(table.options != 0).sum(1) == 1]
    assert effects
    assert {effect.accuracy for effect in effects.values()} <= {float(value) for value in single}
