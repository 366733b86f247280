from __future__ import annotations

from pathlib import Path

import pytest
from known_tables import write_lists

from device_bench.errors import BadInputError
from pipeline.tables.from_experience import HeldBack
from pipeline.tables.task_list import (
    held_back,
    missing,
    read_task_list,
    table_sources,
    training_tasks,
    untimed,
)

GOOD = '[[task]]\nmodel = "cnn"\ndata = "digits"\nsettings = ["local-litert@1"]\n'


def listed(folder: Path, text: str) -> Path:
    path = folder / "tasks.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_setting_under_every_budget_is_a_task_to_train_on(tmp_path: Path) -> None:
    train, _ = write_lists(tmp_path)
    train.write_text(train.read_text() + "budgets = [{}, {min_speedup = 1.5}]\n", encoding="utf-8")
    tasks = training_tasks(read_task_list(train))
    assert len(tasks) == 2 + 2 * 2
    assert [task.context.budget.min_speedup for task in tasks[2:]] == [None, 1.5] * 2
    assert len(table_sources(read_task_list(train))) == 4


def test_paths_are_seen_from_the_list(tmp_path: Path) -> None:
    text = 'tables = "mine"\n' + GOOD.replace('"cnn"', '"net.onnx"') + 'weights = "w.safetensors"\n'
    tasks = read_task_list(listed(tmp_path, text))
    (entry,) = tasks.task
    assert tasks.tables == str(tmp_path / "mine")
    assert (entry.model, entry.weights) == (str(tmp_path / "net.onnx"), str(tmp_path / "w.safetensors"))


def test_what_is_not_recorded_yet_is_told(tmp_path: Path) -> None:
    tasks = read_task_list(listed(tmp_path, GOOD + "plans = 30\n"))
    assert [(order.name, order.plans) for order in missing(tasks)] == [("cnn/digits", 30)]
    train, held = write_lists(tmp_path)
    assert missing(read_task_list(train)) == missing(read_task_list(held)) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "task in the task list .*: Field required"),
        ("[[task]", "not valid TOML"),
        (
            GOOD + "colour = 1\n",
            r"task\.1\.colour .*: Extra inputs are not permitted.*a task has model, data",
        ),
        (GOOD.replace('["local-litert@1"]', "[]"), r"task\.1\.settings .* at least 1 item"),
        (GOOD + GOOD, "cnn/digits stands more than once"),
        (GOOD + "plans = 3\n", "plans .* greater than or equal to 20"),
        (GOOD + "budgets = [{max_drop = -1.0}]\n", r"budgets\.1\.max_drop"),
    ],
)
def test_a_wrong_list_is_refused_and_says_where(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadInputError, match=told):
        read_task_list(listed(tmp_path, text))


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="cannot read the task list"):
        read_task_list(tmp_path / "none.toml")


def test_what_only_the_held_out_list_has_is_held_back(tmp_path: Path) -> None:
    train, held = write_lists(tmp_path)
    found = held_back(read_task_list(held), read_task_list(train))
    assert found == HeldBack(data=frozenset({"unseen"}))


def test_settings_that_a_table_lacks_are_told_and_those_of_no_table_are_not(tmp_path: Path) -> None:
    train, held = write_lists(tmp_path)
    assert untimed([read_task_list(train), read_task_list(held)]) == {}
    with train.open("a", encoding="utf-8") as file:
        file.write('[[task]]\nmodel = "none"\ndata = "here"\nsettings = ["pi4-litert@4"]\n')
    content = train.read_text(encoding="utf-8").replace('settings = ["', 'settings = ["pi4-litert@4", "', 1)
    train.write_text(content, encoding="utf-8")
    found = untimed([read_task_list(train), read_task_list(held)])
    assert found == {tmp_path / "tables" / "known-made-up.safetensors": ("pi4-litert@4",)}


def test_anew_all_listed_settings_of_a_table_are_timed_once(tmp_path: Path) -> None:
    lists = [read_task_list(path) for path in write_lists(tmp_path)]
    found = untimed([*lists, lists[0]], anew=True)
    assert {path.stem for path in found} == {"known-made-up", "other-made-up", "known-unseen"}
    assert all(len(settings) == len(set(settings)) == 2 for settings in found.values())
