"""An agent that can be ended, killed and started again at the same address."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live_agent import LiveAgent, end, init, spawned

from device_bench.wire import Pairing


class Board:
    """A board on loopback, with a port and a pairing of its own.

    Args:
        state: the agent's folder; it is made.
    """

    def __init__(self, state: Path) -> None:
        token, fingerprint = init(state)
        self._pairing = Pairing(token=token, fingerprint=fingerprint)
        self._state = state
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    @property
    def line(self) -> str:
        """What `device-bench init` printed."""
        return self._pairing.line()

    @contextmanager
    def serving(self) -> Iterator[LiveAgent]:
        """The agent, until the block ends; then it is told to end."""
        agent = self.start()
        try:
            yield agent
        finally:
            end(agent)

    def start(self) -> LiveAgent:
        """The agent; whoever starts it ends it."""
        (self._state / "agent.log").unlink(missing_ok=True)
        words = [sys.executable, "-c", "from device_bench.cli import main; main()", "serve"]
        words += ["--state", str(self._state), "--host", "127.0.0.1", "--port", str(self._port)]
        return spawned(words, os.environ, self._state, self._pairing)
