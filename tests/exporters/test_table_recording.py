from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from exporters.table_recording import record
from pipeline.evaluation import score
from pipeline.tables.order import TableOrder
from pipeline.tables.task_table import TaskTable, effects_of

SETTING = "local-onnxruntime@1"
ORDER = TableOrder(model="mlp", data="digits", settings=(SETTING,), plans=20, training_samples=4000)


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskTable, TaskTable]:
    """What a killed recording left behind, and what became of it when it went on."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("tables")

    def killing(share: float, text: str) -> None:
        if share > 0.5:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGELOOP_CACHE", str(folder / "cache"))
        with pytest.raises(Killed):
            record(ORDER, folder / "cut", None, killing)
        left = TaskTable.load((folder / "cut" / ORDER.file_name).with_suffix(".partial"))
        resumed = record(ORDER, folder / "cut", None, lambda share, text: None)
    assert not (folder / "cut" / ORDER.file_name).with_suffix(".partial").exists()
    return left, resumed


def test_every_row_has_an_accuracy_and_a_latency(recordings: tuple[TaskTable, TaskTable]) -> None:
    _, whole = recordings
    assert ((whole.options != 0).sum(1) > 1).sum() == ORDER.plans
    assert ((whole.accuracy >= 0) & (whole.accuracy <= 100)).all()
    assert (whole.latency_ms[SETTING] > 0).all()
    assert whole.header.settings[SETTING].base_latency_ms > 0
    assert 5 < whole.header.chance < 20 < whole.header.float_accuracy


def test_single_changes_are_told_as_effects(recordings: tuple[TaskTable, TaskTable]) -> None:
    _, whole = recordings
    effects = effects_of(whole, [SETTING])
    assert {change.unit for change in effects} == set(whole.codec.space.widths)
    assert all(effect.latency_ms.keys() == {SETTING} for effect in effects.values())


def test_answers_of_the_original_and_of_single_changes_are_kept(
    recordings: tuple[TaskTable, TaskTable],
) -> None:
    left, whole = recordings
    outputs = whole.outputs
    assert outputs is not None and left.outputs is not None
    judged = score(whole.header.metric, outputs.original, outputs.truth)
    assert judged == pytest.approx(whole.header.float_accuracy)
    effects = effects_of(whole, [SETTING])
    assert set(outputs.changed) == set(effects)
    for change, answers in outputs.changed.items():
        # Answers are stored in half precision, which may turn one sample in a few hundred.
        assert score(whole.header.metric, answers, outputs.truth) == pytest.approx(
            effects[change].accuracy, abs=0.5
        )


def test_a_killed_recording_keeps_its_rows_and_goes_on_with_other_plans(
    recordings: tuple[TaskTable, TaskTable],
) -> None:
    left, resumed = recordings
    kept = len(left.accuracy)
    assert 0 < kept < len(resumed.accuracy)
    np.testing.assert_array_equal(resumed.options[:kept], left.options)
    np.testing.assert_array_equal(resumed.accuracy[:kept], left.accuracy)
    assert len({row.tobytes() for row in resumed.options}) == len(resumed.options)


def test_a_table_that_is_there_is_not_recorded_again(tmp_path: Path) -> None:
    table = TaskTable.load(Path(__file__).parents[2] / "policies" / "tables" / "mlp-digits.safetensors")
    table.save(tmp_path / ORDER.file_name)
    told: list[str] = []
    found = record(ORDER, tmp_path, None, lambda share, text: told.append(text))
    assert (told, len(found.accuracy)) == ([], len(table.accuracy))
