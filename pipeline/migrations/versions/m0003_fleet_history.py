"""The fleet's history: visits of the benchmark, and levels that somebody accepted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Two more tables."""
    op.create_table(
        "fleet_visits",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("watched", sa.String(64), nullable=False, index=True),
        sa.Column("round_id", sa.String(200), nullable=False),
        sa.Column("device", sa.String(64), nullable=False, index=True),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.UniqueConstraint("watched", "round_id"),
    )
    op.create_table(
        "fleet_acceptances",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("watched", sa.String(64), nullable=False, index=True),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
    )
