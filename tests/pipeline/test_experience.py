from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from store_suite import StoreSuite, some_trial

from device_bench.errors import BadInputError, MissingExtraError, RunError
from device_bench.protocol import FailureKind
from pipeline.experience import ExperienceStore, Trial, TrialLog
from pipeline.plan import CompressionPlan

GOLDEN = Path(__file__).parents[1] / "golden"


class TestSqliteFile(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[ExperienceStore]:
        with ExperienceStore(tmp_path / "new folder" / "experience.sqlite") as store:
            yield store


class TestUrl(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[ExperienceStore]:
        with ExperienceStore(f"sqlite:///{tmp_path}/by-url.sqlite") as store:
            yield store


def test_what_was_stored_is_there_when_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "experience.sqlite"
    for number in range(3):
        with ExperienceStore(path) as store:
            store.add("run", "task", some_trial(number))
    with ExperienceStore(path) as store:
        assert [trial.number for trial in store.trials()] == [0, 1, 2]


def test_a_row_says_what_when_and_of_which_form(tmp_path: Path) -> None:
    path = tmp_path / "experience.sqlite"
    moment = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    with ExperienceStore(path, clock=lambda: moment) as store:
        store.add("run", "task", some_trial(4))
    with sqlite3.connect(path) as connection:
        row = connection.execute(
            "select task_fingerprint, run_id, number, plan_id, schema_version, created_at, payload "
            "from trials"
        ).fetchone()
    connection.close()
    assert row[:5] == ("task", "run", 4, some_trial(4).plan.plan_id, 1)
    assert row[5].startswith("2025-03-01 12:30:00")
    assert json.loads(row[6])["origin"] == "greedy"


def test_a_killed_process_loses_no_trial_that_was_added(tmp_path: Path) -> None:
    path, log = tmp_path / "experience.sqlite", tmp_path / "trials.jsonl"
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1] / "conformance"), str(Path(__file__).parent)]!r}
from pathlib import Path
from store_suite import some_trial
from pipeline.experience import ExperienceStore, TrialLog
store, log = ExperienceStore({str(path)!r}), TrialLog(Path({str(log)!r}))
for number in range(100_000):
    log.append(some_trial(number))
    store.add("run", "task", some_trial(number))
    sys.stdout.write(str(number) + "\\n")
    sys.stdout.flush()
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    process.wait()
    process.stdout.close()
    with ExperienceStore(path) as store:
        stored = [trial.number for trial in store.trials(run_id="run")]
        logged = TrialLog(log).read()
        assert set(said) <= set(stored) <= {trial.number for trial in logged}
        assert stored == list(range(len(stored)))
        for trial in logged:
            store.add("run", "task", trial)
        assert store.trials() == logged


def test_two_processes_may_add_at_once(tmp_path: Path) -> None:
    path = tmp_path / "experience.sqlite"
    with ExperienceStore(path) as one, ExperienceStore(path) as other:
        one.add("run-1", "task", some_trial(0))
        other.add("run-2", "task", some_trial(0))
        one.add("run-1", "task", some_trial(1))
        assert len(other.trials(task_fingerprint="task")) == 3


def foreign_text(path: Path) -> None:
    path.write_text("this is a letter, and no database at all\n" * 100)


def foreign_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table bookmarks (url text)")
    connection.commit()
    connection.close()


def foreign_trials(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table trials (id integer primary key, judge text)")
    connection.commit()
    connection.close()


def damaged(path: Path) -> None:
    with ExperienceStore(path) as store:
        for number in range(60):
            store.add("run", "task", some_trial(number))
    content = bytearray(path.read_bytes())
    content[4096 : len(content) : 7] = b"\xff" * len(content[4096 : len(content) : 7])
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [foreign_text, foreign_database, foreign_trials, damaged])
def test_what_is_no_store_is_named_and_left_as_it_is(tmp_path: Path, spoil) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "experience.sqlite"
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(BadInputError, match=r"experience\.sqlite"):
        ExperienceStore(path)
    assert path.read_bytes() == before


def test_a_payload_that_is_no_trial_is_named(tmp_path: Path) -> None:
    path = tmp_path / "experience.sqlite"
    with ExperienceStore(path) as store:
        store.add("run", "task", some_trial(3))
        connection = sqlite3.connect(path)
        connection.execute("update trials set payload = '{\"number\": 3}'")
        connection.commit()
        connection.close()
        with pytest.raises(BadInputError, match=r"experience\.sqlite.*trial 3 of run run"):
            store.trials()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInputError, match="cannot make the folder"):
        ExperienceStore(tmp_path / "file" / "experience.sqlite")
    with pytest.raises(BadInputError, match="cannot use the experience store"):
        ExperienceStore(tmp_path)
    with pytest.raises(BadInputError, match="nosuch"):
        ExperienceStore("nosuch://host/database")


def test_without_sqlalchemy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(MissingExtraError, match=r"edgeloop\[pipeline\]"):
        ExperienceStore(tmp_path / "experience.sqlite")


def test_a_log_gives_back_what_was_appended(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    assert log.read() == ()
    for number in range(3):
        log.append(some_trial(number))
    assert log.read() == tuple(some_trial(number) for number in range(3))
    assert TrialLog(log.path).read() == log.read()


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_last_line_is_passed_over_and_then_overwritten(tmp_path: Path, kept: int) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(some_trial(0))
    line = some_trial(1).model_dump_json() + "\n"
    with log.path.open("a") as file:
        file.write(line[:kept])
    assert log.read() == (some_trial(0),)
    log.append(some_trial(2))
    assert log.read() == (some_trial(0), some_trial(2))


@pytest.mark.parametrize("damage", ["", "{}", "not json", '{"number": 1'])
def test_damage_anywhere_else_names_the_line(tmp_path: Path, damage: str) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    lines = [some_trial(0).model_dump_json(), damage, some_trial(2).model_dump_json()]
    log.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInputError, match=r"trials\.jsonl, line 2"):
        log.read()


def test_a_log_that_cannot_be_written_or_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        TrialLog(tmp_path / "nowhere" / "trials.jsonl").append(some_trial(0))
    with pytest.raises(BadInputError, match="cannot read"):
        TrialLog(tmp_path).read()


def test_a_trial_without_accuracy_must_say_why() -> None:
    with pytest.raises(ValidationError, match="must say how it failed"):
        Trial(number=0, plan=CompressionPlan(), origin="greedy")


def told_today(plan: dict[str, Any]) -> dict[str, Any]:
    """A stored plan with what later versions added, whose defaults ask for nothing."""
    recovery = {"quantization_epochs": 0.0, "method": "full", "matching": "logits", "matching_weight": 1.0}
    recovery |= {"patience": 0, "sparsity_schedule": "constant"}
    later = {"layers": {}, "sparsity": 0.0, "calibration": "minmax", "corrections": []}
    units = {name: choice | {"least_contribution": None} for name, choice in plan["units"].items()}
    return plan | later | {"recovery": plan["recovery"] | recovery, "units": units}


def test_golden_plan() -> None:
    text = (GOLDEN / "plan_v1.json").read_text()
    plan = CompressionPlan.model_validate_json(text)
    assert plan.keep_ratio("layer3.1.conv1") == 0.375
    assert plan.recovery.epochs == 12.0
    assert plan.plan_id == "50811dd1fb25"
    assert json.loads(plan.model_dump_json()) == told_today(json.loads(text))


def test_golden_trial() -> None:
    text = (GOLDEN / "trial_v1.json").read_text()
    trial = Trial.model_validate_json(text)
    assert trial.failure is not None
    assert trial.failure.kind is FailureKind.TIMED_OUT
    assert trial.reward is not None
    assert not trial.reward.feasible
    # What later versions added has a default that means: nobody looked.
    stored = json.loads(text)
    later = {"accuracy_rehearsed": None, "plan": told_today(stored["plan"])}
    assert json.loads(trial.model_dump_json()) == stored | later


@pytest.mark.parametrize("name", ["plan_v1.json", "trial_v1.json"])
def test_unknown_keys_are_errors(name: str) -> None:
    kind = CompressionPlan if name.startswith("plan") else Trial
    content = json.loads((GOLDEN / name).read_text()) | {"novelty": 1}
    with pytest.raises(ValidationError, match="novelty"):
        kind.model_validate(content)
