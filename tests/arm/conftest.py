"""An emulated Arm board with its agent, once for all of its tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from live_agent import LiveAgent, launched

from device_bench.client import AgentBench
from device_bench.connection import AgentAddress
from device_bench.emulated.board import Board, build, missing_tools
from device_bench.emulated.cli import default_folder
from device_bench.errors import BadInputError
from device_bench.wire import Pairing


@pytest.fixture(scope="session")
def board() -> Board:
    """Built in the user's cache, where the next run finds it."""
    missing = missing_tools()
    if missing:
        pytest.skip(f"no emulated board without {', '.join(missing)} (Debian packages)")
    board = Board(default_folder())
    try:
        build(board)
    except BadInputError as error:  # what only root may set up; a build that breaks is a failure
        pytest.skip(str(error))
    return board


@pytest.fixture(scope="session")
def arm_agent(board: Board, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAgent]:
    """The agent of this checkout as an aarch64 program, on loopback."""
    state = tmp_path_factory.mktemp("arm") / "state"
    made = subprocess.run(
        board.command(["init", "--state", str(state), "--name", "127.0.0.1", "--json"]),
        env=board.environment(),
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert made.returncode == 0, made.stderr
    pairing = Pairing.from_line(json.loads(made.stdout)["pairing"])
    words = board.command(["serve", "--state", str(state), "--host", "127.0.0.1", "--port", "0"])
    with launched(words, board.environment(), state, pairing) as agent:
        yield agent


@pytest.fixture(scope="session")
def arm_bench(arm_agent: LiveAgent) -> AgentBench:
    certificate = (arm_agent.state / "certificate.pem").read_text()
    return AgentBench(AgentAddress(arm_agent.url, arm_agent.token, certificate))
