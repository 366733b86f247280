"""A desk for each test module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from standing_desk import Desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, homes: None) -> Iterator[Desk]:
    """A folder and a Prefect home of this test module's own; nothing stands yet."""
    place = tmp_path_factory.mktemp("desk")
    environment = os.environ | {
        "PREFECT_HOME": str(place / "prefect"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(place), os.environ.get("PYTHONPATH")])),
    }
    found = Desk(place, environment)
    yield found
    found.close()
