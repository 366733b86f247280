"""The stores in a real PostgreSQL: the same suites, many writers at once, writers and servers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_visits import WATCHED, visit
from history_suite import HistorySuite
from postgres_server import PostgresServer
from store_suite import StoreSuite, some_trial

from device_bench.errors import BadInputError, MissingExtraError, RunError
from pipeline.experience import ExperienceStore
from pipeline.fleet.history_store import HistoryStore

TESTS = Path(__file__).parents[1]
WRITERS, EACH = 4, 20
WRITER = f"""
import sys
sys.path[:0] = {[str(TESTS / "conformance"), str(TESTS / "pipeline")]!r}
from fleet_visits import visit
from store_suite import some_trial, some_task
from pipeline.experience import ExperienceStore
from pipeline.fleet.history_store import HistoryStore
where, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with ExperienceStore(where) as store, HistoryStore(where) as history:
    for number in range(count):
        store.add(name, "task", some_trial(number))
        store.add("run of all", "task", some_trial(number))
        store.add_task(some_task())
        history.add(visit(number, 1.0))
        sys.stdout.write(str(number) + "\\n")
        sys.stdout.flush()
"""


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.new_database()


class TestPostgresExperience(StoreSuite):
    @pytest.fixture
    def store(self, url: str) -> Iterator[ExperienceStore]:
        with ExperienceStore(url) as store:
            yield store


class TestPostgresHistory(HistorySuite):
    @pytest.fixture
    def history(self, url: str) -> Iterator[HistoryStore]:
        with HistoryStore(url) as history:
            yield history


def writer(url: str, name: str, count: int) -> subprocess.Popen[str]:
    """A process that adds trials and says the number of each that is in."""
    words = [sys.executable, "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_many_writers_begin_on_an_empty_database_at_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = request.getfixturevalue("url") if kind == "postgres" else str(tmp_path / "store.sqlite")
    processes = [writer(url, f"run-{index}", EACH) for index in range(WRITERS)]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out.split()) == (0, [str(number) for number in range(EACH)]), err
    with ExperienceStore(url) as store, HistoryStore(url) as history:
        for name in [*(f"run-{index}" for index in range(WRITERS)), "run of all"]:
            found = {trial.number: trial for trial in store.trials(run_id=name)}
            assert found == {number: some_trial(number) for number in range(EACH)}, name
        assert len(store.trials()) == (WRITERS + 1) * EACH
        assert len(store.tasks()) == 1
        assert history.visits(WATCHED) == tuple(visit(number, 1.0) for number in range(EACH))


def test_a_killed_writer_loses_nothing_it_was_told_is_in(url: str) -> None:
    process = writer(url, "run", 100_000)
    assert process.stdout is not None and process.stderr is not None
    said = [int(process.stdout.readline()) for _ in range(7)]
    os.kill(process.pid, signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split("\n")[:-1] if line]
    process.wait()
    process.stdout.close()
    process.stderr.close()
    with ExperienceStore(url) as store:
        stored = [trial.number for trial in store.trials(run_id="run")]
        assert set(said) <= set(stored)
        assert stored == list(range(len(stored)))
        # What a killed process held is let go: the same trials can be written again, and more of them.
        for number in range(len(stored) + 1):
            store.add("run", "task", some_trial(number))
        assert len(store.trials(run_id="run")) == len(stored) + 1


def test_a_server_that_goes_and_comes_back(postgres: PostgresServer, url: str) -> None:
    with ExperienceStore(url) as store:
        store.add("run", "task", some_trial(0))
        postgres.stop("immediate")
        try:
            with pytest.raises(RunError, match=r"cannot use the experience store .*see that it is there"):
                store.add("run", "task", some_trial(1))
        finally:
            postgres.start()
        store.add("run", "task", some_trial(1))
        assert store.trials() == (some_trial(0), some_trial(1))


def test_what_is_there_can_be_read_by_others(postgres: PostgresServer, url: str) -> None:
    with ExperienceStore(url) as store:
        store.add("run", "task", some_trial(3))
    assert (
        postgres.query(url, "SELECT run_id, number, payload::json->>'origin' FROM trials") == "run|3|greedy"
    )
    assert postgres.query(url, "SELECT created_at > now() - interval '1 day' FROM trials") == "t"


def test_a_database_of_something_else(postgres: PostgresServer, url: str) -> None:
    postgres.query(url, "CREATE TABLE flow_run (id integer)")
    with pytest.raises(BadInputError, match=r"a database of something else \(tables: flow_run\)"):
        ExperienceStore(url)
    assert postgres.query(url, r"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "1"


@pytest.mark.parametrize("place", ["nobody.invalid", "127.0.0.1:1"])
def test_a_server_that_is_not_there_and_no_password_in_the_message(place: str) -> None:
    with pytest.raises(BadInputError, match=r"cannot use the experience store postgresql") as caught:
        ExperienceStore(f"postgresql://someone:sesame@{place}/edgeloop")
    assert "sesame" not in str(caught.value)
    assert place.partition(":")[0] in str(caught.value)


def test_without_its_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"edgeloop\[postgres\]"):
        ExperienceStore("postgresql://someone@nowhere/edgeloop")


def test_without_another_s_driver_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "MySQLdb", None)
    with pytest.raises(BadInputError, match=r"the database's driver MySQLdb is not installed"):
        ExperienceStore("mysql://someone@nowhere/edgeloop")
