"""The one database that all stores share: a SQLite file, or any database SQLAlchemy reaches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_bench.errors import BadInputError, MissingExtraError
from pipeline.data.cache import cache_folder

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

VARIABLE = "EDGELOOP_STORE"


def default_store() -> str:
    """`$EDGELOOP_STORE`, or the SQLite file that runs on this machine keep."""
    return os.environ.get(VARIABLE) or str(cache_folder() / "experience.sqlite")


class Database:
    """An open database with our tables in it.

    Args:
        where: path of a SQLite file (made with its folder when new), or a URL such as "postgresql+psycopg://…".

    Raises:
        BadInputError: the file is no store of ours, is damaged or cannot be opened.
        MissingExtraError: SQLAlchemy is not installed.
    """

    def __init__(self, where: str | Path) -> None:
        try:
            import sqlalchemy as sa

            from pipeline.store_tables import Base
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise MissingExtraError("sqlalchemy", "pipeline") from error
        self.where = str(where)
        self._sa = sa
        self._tables = Base.metadata.tables
        url = self.where if "://" in self.where else self._file_url(Path(where))
        with self.explained():
            self._engine = sa.create_engine(url)
        with self.explained(close=True):
            if self._engine.dialect.name == "sqlite":
                self._check_file()
                sa.event.listen(self._engine, "connect", _make_durable)
            self._check_schema()
            if self._engine.dialect.name == "sqlite":
                self._keep_write_ahead_log()
            Base.metadata.create_all(self._engine)

    def session(self) -> Session:
        """A session on it, for a `with`."""
        from sqlalchemy.orm import Session

        return Session(self._engine)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @contextmanager
    def explained(self, close: bool = False) -> Iterator[None]:
        """Errors of the database as our own, naming the store."""
        try:
            yield
        except self._sa.exc.SQLAlchemyError as error:
            if close:
                self.close()
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise BadInputError(
                f"cannot use the experience store {self.where}: {reason}; give another file, or move "
                "this one away to start anew"
            ) from error
        except BadInputError:
            if close:
                self.close()
            raise

    def _file_url(self, path: Path) -> Any:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(
                f"cannot make the folder of the experience store {path}: {error.strerror}; "
                "choose another place"
            ) from error
        return self._sa.URL.create("sqlite", database=str(path))

    def _check_file(self) -> None:
        with self._engine.connect() as connection:
            verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if verdict != "ok":
            raise BadInputError(
                f"the experience store {self.where} is damaged ({verdict}); "
                "move the file away to start a new one"
            )

    def _keep_write_ahead_log(self) -> None:
        """Readers and a writer side by side, and no half-written page after a kill."""
        with self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")

    def _check_schema(self) -> None:
        """Refuse a database that has something else in it, before anything is written to it."""
        found = self._sa.inspect(self._engine)
        there = found.get_table_names()
        if there and not set(there) & set(self._tables):
            raise BadInputError(
                f"{self.where} is a database of something else (tables: {', '.join(there)}); give a new file"
            )
        # A store of an earlier version lacks some tables; they are made with the others.
        for name in set(there) & set(self._tables):
            columns = {column["name"] for column in found.get_columns(name)}
            if columns != set(self._tables[name].columns.keys()):
                raise BadInputError(
                    f"{self.where} has a table {name!r} that is not ours (columns: "
                    f"{', '.join(sorted(columns))}); give a new file"
                )


def _make_durable(connection: Any, _: object) -> None:
    """Every commit on the disk before it returns; wait for another process's commit instead of failing."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
