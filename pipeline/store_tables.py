"""The tables of the store: trials, tasks, and the fleet's history. Imported only when a store is opened."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Root of the mapped classes."""


class TrialRow(Base):
    """One trial. What is asked for by value has a column; the trial itself is JSON in `payload`."""

    __tablename__ = "trials"
    __table_args__ = (UniqueConstraint("run_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    task_fingerprint: Mapped[str] = mapped_column(String(64), index=True)
    run_id: Mapped[str] = mapped_column(String(200), index=True)
    number: Mapped[int]
    plan_id: Mapped[str] = mapped_column(String(64))
    payload: Mapped[str] = mapped_column(Text)
    schema_version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class TaskRow(Base):
    """What is known of one task; a `TaskRecord` as JSON in `payload`."""

    __tablename__ = "tasks"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    payload: Mapped[str] = mapped_column(Text)
    schema_version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class VisitRow(Base):
    """One visit of the fleet benchmark; a `FleetMeasurement` as JSON in `payload`.

    `watched`: hash of what the history is of.
    """

    __tablename__ = "fleet_visits"
    __table_args__ = (UniqueConstraint("watched", "round_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    watched: Mapped[str] = mapped_column(String(64), index=True)
    round_id: Mapped[str] = mapped_column(String(200))
    device: Mapped[str] = mapped_column(String(64), index=True)
    measured_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    payload: Mapped[str] = mapped_column(Text)
    schema_version: Mapped[int]


class AcceptanceRow(Base):
    """A new level that somebody accepted; an `Acceptance` as JSON in `payload`."""

    __tablename__ = "fleet_acceptances"

    id: Mapped[int] = mapped_column(primary_key=True)
    watched: Mapped[str] = mapped_column(String(64), index=True)
    payload: Mapped[str] = mapped_column(Text)
    schema_version: Mapped[int]
