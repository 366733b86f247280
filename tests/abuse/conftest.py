"""One agent for all that abuses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_agent import LiveAgent, running


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAgent]:
    """Takes files of at most 1 MiB, 16 MiB in all, and gives a measuring process 4 GiB of addresses."""
    limits = ("--artifact-limit", "1", "--cache-limit", "16", "--memory-limit", "4096")
    with running(tmp_path_factory.mktemp("agent") / "state", *limits) as live:
        yield live


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the board that no client may see."""
    path = tmp_path / "secret"
    path.write_text("not for clients")
    return path
