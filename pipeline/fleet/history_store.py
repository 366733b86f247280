"""The fleet's history in the database that trials are in."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from pydantic import ValidationError

from device_bench.errors import BadInputError
from pipeline.database import Database
from pipeline.fleet.history import Acceptance, FleetMeasurement, Watched

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.orm import Session

Stored = TypeVar("Stored", FleetMeasurement, Acceptance)


class HistoryStore:
    """A `History` in a SQLite file or any database SQLAlchemy reaches. Each visit is committed on its own.

    Args:
        where: as of `Database`.

    Raises:
        BadInputError, MissingExtraError: as of `Database`.
    """

    def __init__(self, where: str | Path) -> None:
        self._database = Database(where)
        import sqlalchemy as sa

        from pipeline.store_tables import AcceptanceRow, VisitRow

        self._sa, self._visit, self._acceptance = sa, VisitRow, AcceptanceRow

    def add(self, visit: FleetMeasurement) -> None:
        """Keep a visit; one of the same round and watched artifact is kept once.

        Raises:
            RunError: the store cannot be written.
        """
        key = key_of(visit.watched)

        def change(session: Session) -> None:
            known = session.scalar(
                self._sa.select(self._visit.id).filter_by(watched=key, round_id=visit.round_id)
            )
            if known is None:
                row = self._visit(
                    watched=key,
                    round_id=visit.round_id,
                    device=visit.watched.device,
                    measured_at=visit.measured_at,
                    payload=visit.model_dump_json(),
                    schema_version=visit.schema_version,
                )
                session.add(row)

        self._database.write(change)

    def visits(self, watched: Watched, last: int | None = None) -> tuple[FleetMeasurement, ...]:
        """Every visit, or so many of the last ones; the oldest first.

        Raises:
            BadInputError: one cannot be read.
        """
        query = self._sa.select(self._visit.payload).filter_by(watched=key_of(watched))
        return self._read(query.order_by(self._visit.measured_at.desc()).limit(last))

    def of_round(self, round_id: str) -> tuple[FleetMeasurement, ...]:
        """What a round of the benchmark has measured so far.

        Raises:
            BadInputError: one cannot be read.
        """
        return self._read(self._sa.select(self._visit.payload).filter_by(round_id=round_id))

    def last_of_device(self, device: str) -> FleetMeasurement | None:
        """The newest visit to a device.

        Raises:
            BadInputError: it cannot be read.
        """
        newest = self._visit.measured_at.desc()
        query = self._sa.select(self._visit.payload).filter_by(device=device).order_by(newest).limit(1)
        found = self._read(query)
        return found[0] if found else None

    def watched(self, device: str | None = None) -> tuple[Watched, ...]:
        """Everything that was ever visited, on one device where asked; in the order of its first visit."""
        query = self._sa.select(self._visit.payload).where(
            self._visit.id.in_(
                self._sa.select(self._sa.func.min(self._visit.id)).group_by(self._visit.watched)
            )
        )
        if device is not None:
            query = query.filter_by(device=device)
        return tuple(visit.watched for visit in self._read(query.order_by(self._visit.id)))

    def accept(self, acceptance: Acceptance) -> None:
        """Let a history begin anew.

        Raises:
            RunError: the store cannot be written.
        """
        row = {
            "watched": key_of(acceptance.watched),
            "payload": acceptance.model_dump_json(),
            "schema_version": acceptance.schema_version,
        }
        self._database.write(lambda session: session.add(self._acceptance(**row)))

    def accepted_at(self, watched: Watched) -> datetime | None:
        """When somebody last accepted a new level.

        Raises:
            BadInputError: what is stored cannot be read.
        """
        query = self._sa.select(self._acceptance.payload).filter_by(watched=key_of(watched))
        with self._database.explained(), self._database.session() as session:
            payloads = session.scalars(query).all()
        return max((self._parsed(Acceptance, one).accepted_at for one in payloads), default=None)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, query: Select[tuple[str]]) -> tuple[FleetMeasurement, ...]:
        with self._database.explained(), self._database.session() as session:
            payloads = session.scalars(query).all()
        found = (self._parsed(FleetMeasurement, payload) for payload in payloads)
        return tuple(sorted(found, key=lambda visit: visit.measured_at))

    def _parsed(self, kind: type[Stored], payload: str) -> Stored:
        try:
            return kind.model_validate_json(payload)
        except ValidationError as error:
            raise BadInputError(
                f"{self._database.where} is damaged: it has a {kind.__name__} that is none "
                f"({error.errors()[0]['msg']}); move the file away to start a new store"
            ) from error


def key_of(watched: Watched) -> str:
    """The same 64 hex digits for equal ones."""
    return hashlib.sha256(watched.model_dump_json().encode()).hexdigest()
