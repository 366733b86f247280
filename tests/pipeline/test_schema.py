"""Revisions of the store's schema, in a SQLite file and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fleet_visits import WATCHED, visit
from store_suite import some_task, some_trial

import pipeline.migrations
from device_bench.errors import BadInputError
from pipeline.database import Database, store_status, upgrade_store
from pipeline.database_link import DatabaseLink
from pipeline.experience import ExperienceStore
from pipeline.fleet.history_store import HistoryStore
from pipeline.schema import HEAD, REVISIONS, Schema, Standing
from pipeline.store_tables import Base

# What each revision brought.
TABLES = {
    "0001": ("trials",),
    "0002": ("tasks",),
    "0003": ("fleet_visits", "fleet_acceptances"),
}
Do = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "store.sqlite")
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def link(where: str) -> Iterator[DatabaseLink]:
    """The same, open, whatever is in it."""
    found = DatabaseLink(where)
    yield found
    found.close()


@pytest.fixture
def back_to(where: str, link: DatabaseLink) -> Callable[[str, bool], None]:
    """Makes a store as an earlier edgeloop left it, with a trial in it."""

    def make(revision: str, stamped: bool) -> None:
        with ExperienceStore(where) as store:
            store.add("run", "task", some_trial(0))
        with link.engine.begin() as connection:
            for later in REVISIONS[REVISIONS.index(revision) + 1 :]:
                for name in TABLES[later]:
                    connection.execute(sa.text(f"DROP TABLE {name}"))
            change = f"UPDATE alembic_version SET version_num = '{revision}'"
            connection.execute(sa.text(change if stamped else "DROP TABLE alembic_version"))

    return make


def tables(link: DatabaseLink) -> set[str]:
    return set(sa.inspect(link.engine).get_table_names())


def test_the_revisions_make_the_tables_that_the_stores_use(where: str, link: DatabaseLink) -> None:
    assert upgrade_store(where) == Schema(Standing.EMPTY, None)
    with link.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        uniques = {
            name: [one["column_names"] for one in sa.inspect(connection).get_unique_constraints(name)]
            for name in ("trials", "fleet_visits")
        }
    assert uniques == {"trials": [["run_id", "number"]], "fleet_visits": [["watched", "round_id"]]}
    assert upgrade_store(where) == Schema(Standing.CURRENT, HEAD)


def test_head_is_the_last_revision() -> None:
    script = ScriptDirectory(str(Path(pipeline.migrations.__file__).parent))
    assert script.get_heads() == [HEAD]
    assert tuple(step.revision for step in reversed(list(script.walk_revisions()))) == REVISIONS
    assert set(TABLES) == set(REVISIONS)


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_store_of_before_revisions_is_stamped_and_stays_readable(
    where: str, link: DatabaseLink, back_to: Do, revision: str
) -> None:
    back_to(revision, False)
    before = store_status(where)
    assert before.schema == Schema(Standing.UNSTAMPED, revision)
    assert before.rows == {}
    with ExperienceStore(where) as store, HistoryStore(where) as history:
        assert store.trials() == (some_trial(0),)
        store.add_task(some_task())
        history.add(visit(0, 1.0))
        assert history.visits(WATCHED) == (visit(0, 1.0),)
    after = store_status(where)
    assert after.schema == Schema(Standing.CURRENT, HEAD)
    assert after.rows == {"trials": 1, "tasks": 1, "fleet_visits": 1, "fleet_acceptances": 0}


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_an_earlier_schema_says_so_until_it_is_upgraded(
    where: str, link: DatabaseLink, back_to: Do, revision: str
) -> None:
    back_to(revision, True)
    there = tables(link)
    with pytest.raises(BadInputError, match=rf"earlier edgeloop \(schema {revision}.*edgeloop store upgrade"):
        Database(where)
    assert tables(link) == there
    assert upgrade_store(where) == Schema(Standing.BEHIND, revision)
    with ExperienceStore(where) as store:
        assert store.trials() == (some_trial(0),)


def test_a_later_schema_is_left_alone(where: str, link: DatabaseLink) -> None:
    upgrade_store(where)
    with link.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (Database, upgrade_store):
        with pytest.raises(BadInputError, match=r"of a later edgeloop \(schema 9999; this one knows"):
            use(where)
    assert store_status(where).schema == Schema(Standing.AHEAD, "9999")


def test_an_upgrade_that_is_cut_off_has_changed_nothing(
    where: str, link: DatabaseLink, back_to: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_to("0001", True)
    there = tables(link)
    stamp = MigrationContext.stamp

    def cut_off(context: MigrationContext, script: ScriptDirectory, revision: str) -> None:
        if revision == HEAD:
            raise KeyboardInterrupt
        stamp(context, script, revision)

    with monkeypatch.context() as patch:
        patch.setattr(MigrationContext, "stamp", cut_off)
        with pytest.raises(KeyboardInterrupt):
            upgrade_store(where)
    assert tables(link) == there
    assert upgrade_store(where) == Schema(Standing.BEHIND, "0001")
    assert tables(link) == {name for names in TABLES.values() for name in names} | {"alembic_version"}


def test_looking_makes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "store.sqlite"
    found = store_status(str(place))
    assert (found.schema, found.rows) == (None, {})
    assert not place.exists()
