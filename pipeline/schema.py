"""The schema of the store: at which revision a database is, and how it gets to the one of this edgeloop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.errors import BadInputError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

HEAD = "0003"
REVISIONS = ("0001", "0002", HEAD)
_VERSION_TABLE = "alembic_version"
# "edge" in hexadecimal: held while the tables of a PostgreSQL database are made or changed.
_ADVISORY_LOCK = 0x65646765
# Columns as they were before stores had revisions. A store of then is known by them.
_UNSTAMPED = {
    "trials": {
        "id", "task_fingerprint", "run_id", "number", "plan_id", "payload", "schema_version", "created_at",
    },
    "tasks": {"fingerprint", "payload", "schema_version", "created_at"},
    "fleet_visits": {"id", "watched", "round_id", "device", "measured_at", "payload", "schema_version"},
    "fleet_acceptances": {"id", "watched", "payload", "schema_version"},
}  # fmt: skip


class Standing(StrEnum):
    """How a database stands to this edgeloop."""

    EMPTY = "empty"
    UNSTAMPED = "unstamped"
    BEHIND = "behind"
    CURRENT = "current"
    AHEAD = "ahead"


@dataclass(frozen=True)
class Schema:
    """What was found in a database. `revision`: None for an empty one."""

    standing: Standing
    revision: str | None


def read_schema(connection: Connection, where: str) -> Schema:
    """Look at a database; nothing is written.

    Args:
        connection: to the database.
        where: what it is called in an error.

    Raises:
        BadInputError: something else is in it.
    """
    import sqlalchemy as sa

    found = sa.inspect(connection)
    there = set(found.get_table_names())
    if _VERSION_TABLE in there and "trials" in there:
        revision = str(connection.execute(sa.text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar_one())
        if revision == HEAD:
            return Schema(Standing.CURRENT, revision)
        return Schema(Standing.BEHIND if revision in REVISIONS else Standing.AHEAD, revision)
    if there and not there & set(_UNSTAMPED):
        names = ", ".join(sorted(there))
        raise BadInputError(f"{where} is a database of something else (tables: {names}); give a new one")
    for name in sorted(there & set(_UNSTAMPED)):
        columns = {column["name"] for column in found.get_columns(name)}
        if columns != _UNSTAMPED[name]:
            raise BadInputError(
                f"{where} has a table {name!r} that is not ours (columns: {', '.join(sorted(columns))}); "
                "give a new one"
            )
    if "trials" not in there:
        return Schema(Standing.EMPTY, None)
    revision = "0003" if "fleet_visits" in there else "0002" if "tasks" in there else "0001"
    return Schema(Standing.UNSTAMPED, revision)


def upgrade_schema(engine: Engine, where: str) -> Schema:
    """Bring a database to this edgeloop's revision, one process at a time and wholly or not at all.

    A database of before there were revisions is given the one that its tables have.

    Returns:
        what was found before.

    Raises:
        BadInputError: something else is in it, or a later edgeloop made it.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with _alone(engine) as connection:
        found = read_schema(connection, where)
        if found.standing is Standing.AHEAD:
            raise BadInputError(too_new(where, found.revision))
        context = MigrationContext.configure(connection)
        script = ScriptDirectory(str(Path(__file__).parent / "migrations"))
        if found.standing is Standing.UNSTAMPED:
            context.stamp(script, str(found.revision))
        with Operations.context(context):
            for step in reversed(list(script.iterate_revisions(HEAD, found.revision or "base"))):
                step.module.upgrade()
                context.stamp(script, step.revision)
    return found


def too_old(where: str, revision: str | None) -> str:
    """What to do about a store that is behind."""
    return (
        f"the store {where} is of an earlier edgeloop (schema {revision}, this one's is {HEAD}); bring it up "
        "with `edgeloop store upgrade`, after a backup"
    )


def too_new(where: str, revision: str | None) -> str:
    """What to do about a store that is ahead."""
    return (
        f"the store {where} is of a later edgeloop (schema {revision}; this one knows {HEAD}); install that "
        "edgeloop, or give another store"
    )


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """One transaction that keeps other processes from changing the schema meanwhile."""
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            yield connection
        return
    # Python's sqlite3 begins no transaction for CREATE TABLE by itself.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
