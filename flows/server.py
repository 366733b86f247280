"""Prefect's server as a process that lives and dies with the one that started it.

A run from the command line has a temporary one, without pages and schedules; `edgeloop server up` has a
standing one. Prefect can start one by itself. That one shares the terminal with the run, so Ctrl-C ends it
before the run could tell it how it ended, and it outlives a run that was killed. This one does neither.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO

from device_bench.errors import RunError

START_SECONDS = 120.0
STOP_SECONDS = 5.0


class TemporaryServer:
    """A server on a free port of the loopback interface; it starts at once and is ready a little later."""

    def __init__(self) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(64)
            self.api_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            # The socket is handed over, so that no other process can take the port meanwhile.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "flows.server", str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,
            )
        atexit.register(self.stop)

    def wait_ready(self) -> None:
        """Return once the server answers.

        Raises:
            RunError: it ended, or did not answer in time; with its own last words.
        """
        import httpx

        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.api_url}/health", timeout=5.0, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        told = [line.strip() for line in lines if "Error" in line] or ["it said nothing"]
        raise RunError(
            f"Prefect's temporary server did not start: {told[-1]}; set PREFECT_HOME to a folder you may "
            "write, or PREFECT_API_URL to a server that runs"
        )

    def stop(self) -> None:
        """End the server; it is killed if it does not end by itself."""
        atexit.unregister(self.stop)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _end_with_parent() -> None:
    """The parent holds the other end of standard input; however it ends, that end closes."""
    # Not by sys.stdin: its lock would be held when the interpreter ends for another reason.
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def serve(descriptor: int, *, standing: bool) -> None:
    """Serve on a listening socket until standard input closes; pages and schedules only where `standing`."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=not standing, final=True)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    )
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    serve(int(sys.argv[1]), standing=sys.argv[2:] == ["standing"])
