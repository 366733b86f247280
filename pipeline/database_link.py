"""A connection to the one database of all stores: a SQLite file, or any database SQLAlchemy reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_bench.errors import BadInputError, EdgeloopError, MissingExtraError, RunError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

# What a URL without a driver means, in the words of PostgreSQL's own tools.
_POSTGRES = {"postgres", "postgresql"}
_POSTGRES_DRIVER = "postgresql+psycopg"
# Seconds that a server may take to answer.
_CONNECT_TIMEOUT = "10"


class DatabaseLink:
    """An open database, whatever is in it.

    Args:
        where: path of a SQLite file (made with its folder when new), or a URL such as
            "postgresql://user:password@host/database".

    Attributes:
        where: the same for messages, without its password.
        engine: SQLAlchemy's.

    Raises:
        BadInputError: it is damaged or cannot be opened.
        MissingExtraError: SQLAlchemy or the database's driver is not installed.
    """

    def __init__(self, where: str | Path) -> None:
        try:
            import sqlalchemy as sa
        except ModuleNotFoundError as error:
            if error.name != "sqlalchemy":
                raise
            raise MissingExtraError("sqlalchemy", "pipeline") from error
        self._sa = sa
        self.where = "the given URL"
        with self.explained():
            url = sa.make_url(str(where)) if "://" in str(where) else self._file_url(Path(where))
            if url.drivername in _POSTGRES:
                url = url.set(drivername=_POSTGRES_DRIVER)
            self.is_file = url.get_backend_name() == "sqlite"
            self.where = str(where) if self.is_file else url.render_as_string(hide_password=True)
            if url.drivername == _POSTGRES_DRIVER:
                url = url.update_query_dict({"connect_timeout": _CONNECT_TIMEOUT} | dict(url.query))
            # A server may have been started anew between two trials.
            self.engine = self._engine_of(url)
        if self.is_file:
            with self.explained(close=True):
                self._check_file()
            sa.event.listen(self.engine, "connect", _make_durable)

    def session(self) -> Session:
        """A session on it, for a `with`."""
        from sqlalchemy.orm import Session

        return Session(self.engine)

    def write(self, change: Callable[[Session], None]) -> None:
        """Make a change and commit it; once more where another process wrote the same row meanwhile.

        Args:
            change: looks for its row before it adds one, so that the second time it finds the other's.

        Raises:
            RunError: the database cannot be written.
        """
        with self.explained(RunError):
            try:
                self._write_once(change)
            except self._sa.exc.IntegrityError:
                self._write_once(change)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    @contextmanager
    def explained(self, kind: type[EdgeloopError] = BadInputError, close: bool = False) -> Iterator[None]:
        """Errors of the database as our own, naming the store."""
        try:
            yield
        except self._sa.exc.SQLAlchemyError as error:
            if close:
                self.close()
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            remedy = (
                "give another file, or move this one away to start anew"
                if "://" not in self.where
                else "see that it is there and answers, and that the URL is right"
            )
            raise kind(f"cannot use the experience store {self.where}: {reason}; {remedy}") from error
        except BadInputError:
            if close:
                self.close()
            raise

    def _write_once(self, change: Callable[[Session], None]) -> None:
        with self.session() as session:
            change(session)
            session.commit()

    def _engine_of(self, url: Any) -> Any:
        try:
            return self._sa.create_engine(url, pool_pre_ping=not self.is_file)
        except ModuleNotFoundError as error:
            if error.name == "psycopg":
                raise MissingExtraError("psycopg", "postgres") from error
            raise BadInputError(
                f"cannot use the experience store {self.where}: the database's driver {error.name} is not "
                "installed; install it, or give a URL of PostgreSQL or a SQLite file"
            ) from error

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
        with self.engine.connect() as connection:
            verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if verdict != "ok":
            raise BadInputError(
                f"the experience store {self.where} is damaged ({verdict}); "
                "move the file away to start a new one"
            )


def _make_durable(connection: Any, _: object) -> None:
    """Every commit on the disk before it returns; wait for another process's commit instead of failing."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
