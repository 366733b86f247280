"""The one database of all stores, with our tables in it; how it stands, and how it is brought up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.errors import BadInputError
from pipeline.data.cache import cache_folder
from pipeline.database_link import DatabaseLink

if TYPE_CHECKING:
    from pipeline.schema import Schema

VARIABLE = "EDGELOOP_STORE"


def default_store() -> str:
    """`$EDGELOOP_STORE`, or the SQLite file that runs on this machine keep."""
    return os.environ.get(VARIABLE) or str(cache_folder() / "experience.sqlite")


class Database(DatabaseLink):
    """An open database with our tables in it, as this edgeloop knows them.

    An empty one is given them. One of before there were revisions is given what it lacks.

    Args:
        where: as of `DatabaseLink`.

    Raises:
        BadInputError: as of `DatabaseLink`; or it holds something else, or tables of another edgeloop.
        MissingExtraError: as of `DatabaseLink`.
    """

    def __init__(self, where: str | Path) -> None:
        super().__init__(where)
        from pipeline.schema import Standing, read_schema, too_new, too_old, upgrade_schema

        with self.explained(close=True):
            with self.engine.connect() as connection:
                found = read_schema(connection, self.where)
            if found.standing is Standing.BEHIND:
                raise BadInputError(too_old(self.where, found.revision))
            if found.standing is Standing.AHEAD:
                raise BadInputError(too_new(self.where, found.revision))
            if found.standing is not Standing.CURRENT:
                upgrade_schema(self.engine, self.where)
            if self.is_file:
                # Readers and a writer side by side, and no half-written page after a kill.
                with self.engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")


@dataclass(frozen=True)
class StoreStatus:
    """How a store stands. `rows`: by table; empty where the tables are another edgeloop's.

    `schema`: None where there is no file yet.
    """

    where: str
    schema: Schema | None
    rows: dict[str, int]


def store_status(where: str) -> StoreStatus:
    """Look at a store; nothing is made or changed.

    Raises:
        as `Database`, but for tables of another edgeloop.
    """
    if "://" not in where and not Path(where).exists():
        return StoreStatus(where, None, {})
    link = DatabaseLink(where)
    import sqlalchemy as sa

    from pipeline.schema import Standing, read_schema
    from pipeline.store_tables import Base

    rows = {}
    try:
        with link.explained(), link.engine.connect() as connection:
            found = read_schema(connection, link.where)
            if found.standing is Standing.CURRENT:
                for name, table in Base.metadata.tables.items():
                    count = sa.select(sa.func.count()).select_from(table)
                    rows[name] = int(connection.execute(count).scalar_one())
    finally:
        link.close()
    return StoreStatus(link.where, found, rows)


def upgrade_store(where: str) -> Schema:
    """Make a store's tables, or bring them to this edgeloop's revision; what was found before.

    Raises:
        as `Database`, but for tables of an earlier edgeloop.
    """
    link = DatabaseLink(where)
    from pipeline.schema import upgrade_schema

    try:
        with link.explained():
            return upgrade_schema(link.engine, link.where)
    finally:
        link.close()
