"""Which server `edgeloop server up` works with: the user's own where one answers, or one started here."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from device_bench.errors import BadInputError, RunError
from flows.deployments.told import meant_server

# Nothing listens there (port 9, "discard").
SILENT = "http://127.0.0.1:9/api"
FAR = "http://192.0.2.1:9/api"


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def answering() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


def test_a_server_that_answers_is_used(answering: str) -> None:
    for given, told in ((answering, None), (None, answering), (answering + "/", SILENT)):
        meant = meant_server(given, told, "127.0.0.1", None)
        assert (meant.api_url, meant.listener) == (answering, None)


def test_without_one_a_port_is_taken_here() -> None:
    meant = meant_server(None, None, "127.0.0.1", 0)
    assert meant.listener is not None
    with meant.listener:
        port = meant.listener.getsockname()[1]
        assert meant.api_url == f"http://127.0.0.1:{port}/api"
        with pytest.raises(BadInputError, match=rf"cannot serve on 127.0.0.1:{port}: .*--port"):
            meant_server(None, None, "127.0.0.1", port)
        # What Prefect is told of and is silent is started here, on that port.
        with pytest.raises(BadInputError, match=rf"cannot serve on 127.0.0.1:{port}"):
            meant_server(None, f"http://localhost:{port}/nowhere", "127.0.0.1", None)


def test_every_interface_is_reached_by_the_loopback() -> None:
    meant = meant_server(None, SILENT, "0.0.0.0", 0)
    assert meant.listener is not None
    with meant.listener:
        assert meant.api_url.startswith("http://127.0.0.1:")


def test_a_server_that_was_named_and_is_silent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.deployments.told.ANSWER_SECONDS", 0.2)
    with pytest.raises(RunError, match=re.escape(f"no Prefect server answers at {SILENT}")):
        meant_server(SILENT, None, "127.0.0.1", 0)
    with pytest.raises(RunError, match=r"told to use .*192.0.2.1.*prefect config unset PREFECT_API_URL"):
        meant_server(None, FAR, "127.0.0.1", 0)
