"""Where runs keep what they find: a database by URL for the trials, a shelf by URL for the files."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from postgres_server import PostgresServer
from store_suite import some_trial

from flows.cli import app
from flows.compression.releasing import release_station
from pipeline.database import Database, upgrade_store
from pipeline.experience import ExperienceStore, TrialLog
from pipeline.fleet.shelf import Shelf
from pipeline.progress import Silent, current_reporter
from pipeline.result import RunResult
from pipeline.schema import HEAD

Command = Callable[..., subprocess.CompletedProcess[str]]


def run(*arguments: object, code: int = 0) -> str:
    """What a command prints."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    result: Result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def stored(
    postgres: PostgresServer,
    edgeloop: Command,
    only_run: Callable[[Path], Path],
    weights: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, str, subprocess.CompletedProcess[str]]:
    """A run's folder, its database, and what it said. Its shelf is `shelf` beside `runs`."""
    place, url = tmp_path_factory.mktemp("stored"), postgres.new_database()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGELOOP_CACHE", str(place / "cache"))
        done = edgeloop(
            *("compress", "--model", "mlp", "--data", "digits", "--weights", weights("mlp")),
            *("--target", "local-onnxruntime", "--policy", "uniform", "--max-drop", 100, "--trials", 1),
            *("--recoveries", 0, "--rehearsals", 0, "--store", url, "--artifacts", place / "shelf"),
            cwd=place,
        )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return only_run(place / "runs"), url, done


def test_a_run_keeps_its_trials_in_postgres(
    stored: tuple[Path, str, subprocess.CompletedProcess[str]],
) -> None:
    folder, url, done = stored
    with ExperienceStore(url) as store:
        assert [(entry.run_id, entry.trial.number) for entry in store.entries()] == [(folder.name, 1)]
        assert len(store.tasks()) == 1
    assert not (folder.parents[1] / "cache" / "experience.sqlite").exists()
    assert url not in (folder / "job.json").read_text()
    # Whether so small a net is faster as INT8 is the machine's to say; what meets its budget is released.
    released = Shelf(str(folder.parents[1] / "shelf")).releases()
    assert len(released) == (done.returncode == 0)


def test_a_resumed_run_fills_the_store_it_is_given(
    stored: tuple[Path, str, subprocess.CompletedProcess[str]], edgeloop: Command, tmp_path: Path
) -> None:
    folder, _, _ = stored
    again = edgeloop("compress", "--resume", folder, "--store", tmp_path / "other.sqlite", cwd=tmp_path)
    assert again.returncode in (0, 1), again.stdout + again.stderr
    with ExperienceStore(tmp_path / "other.sqlite") as store:
        assert [trial.number for trial in store.trials(run_id=folder.name)] == [1]


def test_what_met_its_budget_is_released_once(
    stored: tuple[Path, str, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stored[0], folder)
    result = RunResult.model_validate_json((folder / "result.json").read_bytes())
    (target,) = result.targets.values()
    met = target.model_copy(update={"budget_met": True, "misses": ()})
    changed = result.model_copy(update={"budget_met": True, "targets": {"local-onnxruntime": met}})
    (folder / "result.json").write_text(changed.model_dump_json())
    monkeypatch.setenv("EDGELOOP_ARTIFACTS", str(tmp_path / "shelf"))
    shelf = Shelf(str(tmp_path / "shelf"), tmp_path / "fetched")
    assert release_station(folder) == ("mlp-digits-local-onnxruntime",)
    (released,) = shelf.history()
    assert released.run_id == result.run_id
    assert shelf.fetch(released).read_bytes() == (folder / target.chosen.artifact).read_bytes()
    assert release_station(folder) == ("mlp-digits-local-onnxruntime",)
    assert shelf.history() == (released,)


def test_a_shelf_that_cannot_be_written_is_noted_and_no_more(
    stored: tuple[Path, str, subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, watch = stored[0], Silent()
    monkeypatch.setenv("EDGELOOP_ARTIFACTS", "nowhere://bucket")
    token = current_reporter.set(watch)
    try:
        assert release_station(folder) == ()
    finally:
        current_reporter.reset(token)
    (note,) = watch.notes
    assert "cannot use nowhere://bucket for artifacts" in note
    assert note.endswith(f"edgeloop release {folder}")


@pytest.mark.parametrize(
    ("option", "place", "said"),
    [
        ("--artifacts", "nowhere://bucket", "cannot use nowhere://bucket for artifacts"),
        (
            "--store",
            "postgresql://me:sesame@127.0.0.1:1/edgeloop",
            "cannot use the experience store postgresql",
        ),
    ],
)
def test_a_place_that_cannot_be_used_ends_a_run_before_it_has_begun(
    edgeloop: Command, weights: Callable[[str], Path], tmp_path: Path, option: str, place: str, said: str
) -> None:
    done = edgeloop(
        *("compress", "--model", "mlp", "--data", "digits", "--weights", weights("mlp"), option, place),
        *("--target", "local-onnxruntime", "--policy", "uniform", "--trials", 1),
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "sesame" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_experience_goes_from_a_file_to_postgres(postgres: PostgresServer, tmp_path: Path) -> None:
    url, file = postgres.new_database(), tmp_path / "experience.jsonl"
    with ExperienceStore(tmp_path / "store.sqlite") as store:
        for number in range(3):
            store.add("run", "task", some_trial(number))
    run("experience", "export", file, "--store", tmp_path / "store.sqlite")
    assert "3 trials added" in run("experience", "import", file, "--store", url)
    with ExperienceStore(url) as store:
        assert [trial.number for trial in store.trials()] == [0, 1, 2]


def test_a_store_s_standing(tmp_path: Path) -> None:
    place = tmp_path / "store.sqlite"
    assert "is not there yet" in run("store", "status", "--store", place)
    assert f"made, with schema {HEAD}" in run("store", "upgrade", "--store", place)
    assert f"has schema {HEAD} already" in run("store", "upgrade", "--store", place)
    assert "which is this edgeloop's" in run("store", "status", "--store", place)
    with sqlite3.connect(place) as connection:
        for change in ("DROP TABLE fleet_visits", "DROP TABLE fleet_acceptances"):
            connection.execute(change)
        connection.execute("UPDATE alembic_version SET version_num = '0002'")
    connection.close()
    assert "edgeloop store upgrade" in run("store", "status", "--store", place, code=1)
    said = run("store", "status", "--json", "--store", place, code=1)
    assert json.loads(said) == {
        "schema_version": 1,
        "store": str(place),
        "standing": "behind",
        "schema": "0002",
        "wanted_schema": HEAD,
        "rows": {},
    }
    assert f"schema 0002 before, now {HEAD}" in run("store", "upgrade", "--store", place)
    Database(place).close()


def test_without_sqlalchemy_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    said = run("store", "upgrade", "--store", tmp_path / "store.sqlite", code=2)
    assert "edgeloop[pipeline]" in said


def test_status_as_json_of_a_database(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    upgrade_store(url)
    said = json.loads(run("store", "status", "--json", "--store", url))
    assert (said["standing"], said["rows"]["trials"]) == ("current", 0)
    assert said["store"].startswith("postgresql+psycopg://edgeloop@/store_")


@pytest.mark.slow
def test_a_database_that_dies_within_a_run_loses_nothing(
    postgres: PostgresServer,
    start: Callable[..., subprocess.Popen[str]],
    edgeloop: Command,
    weights: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    url = postgres.new_database()
    running = start(
        *("compress", "--model", "mlp", "--data", "digits", "--weights", weights("mlp"), "--store", url),
        *("--target", "local-onnxruntime", "--policy", "random", "--max-drop", 100, "--trials", 40),
        *("--recoveries", 0, "--rehearsals", 0),
        cwd=tmp_path,
    )
    try:
        deadline = time.monotonic() + 300
        while not (logs := list(tmp_path.glob("runs/*/trials.jsonl"))) or len(TrialLog(logs[0]).read()) < 2:
            assert time.monotonic() < deadline and running.poll() is None, "no trial was made"
            time.sleep(0.05)
        postgres.stop("immediate")
        try:
            _, said = running.communicate(timeout=300)
        finally:
            postgres.start()
    finally:
        running.kill()
    assert running.returncode == 3, said
    assert "cannot use the experience store" in said
    assert f"--resume runs/{logs[0].parent.name}" in said
    before = TrialLog(logs[0]).read()
    again = edgeloop("compress", "--resume", logs[0].parent, "--store", url, cwd=tmp_path)
    assert again.returncode in (0, 1), again.stdout + again.stderr
    after = TrialLog(logs[0]).read()
    assert after[: len(before)] == before
    with ExperienceStore(url) as store:
        assert store.trials(run_id=logs[0].parent.name) == after
