"""A desk for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from standing_desk import Desk, desk_in


@pytest.fixture
def desk(tmp_path: Path, homes: None) -> Iterator[Desk]:
    """A folder and a Prefect home of this test's own; nothing stands yet."""
    with desk_in(tmp_path) as found:
        yield found
