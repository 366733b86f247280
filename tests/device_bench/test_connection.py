"""Requests that outlast lost connections and busy boards, by a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from device_bench.agent.certificate import make_certificate
from device_bench.connection import AgentAddress, Connection, FileBody, JsonBody, Means, Patience
from device_bench.errors import RefusedError, UnreachableError
from device_bench.wire import Refusal

TOKEN = "a-token-that-nobody-may-see"
PATIENCE = Patience(lost_seconds=60, busy_seconds=600)
Answer = httpx.Response | type[Exception]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("certificate") / "certificate.pem"
    make_certificate(path, path.with_suffix(".key"), ["board"], datetime.now(UTC))
    return path.read_text()


class Board:
    """Gives prepared answers, the last one for ever; tells what it was asked, and how long clients slept."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[httpx.Request] = []
        self.bodies: list[bytes] = []
        self.slept: list[float] = []
        self.told: list[str] = []
        self._answers = list(answers)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The next answer."""
        self.requests.append(request)
        self.bodies.append(request.read())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("gone", request=request)  # type: ignore[call-arg]

    @property
    def now(self) -> float:
        """The clock."""
        return sum(self.slept)

    def means(self) -> Means:
        """A client's means, with this board at the other end."""
        return Means(
            tell=self.told.append,
            clock=lambda: self.now,
            sleep=self.slept.append,
            chance=lambda: 0.0,
            transport=httpx.MockTransport(self.answer),
        )


Connect = Callable[[Board], Connection]


@pytest.fixture
def connect(certificate: str) -> Connect:
    address = AgentAddress("https://board:8443", TOKEN, certificate)
    return lambda board: Connection(address, PATIENCE, board.means())


def refused(status: int, **headers: str) -> httpx.Response:
    content = Refusal(code="why", message="the line is full").model_dump_json()
    return httpx.Response(
        status, content=content, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


OK = httpx.Response(200, content=b"{}")


def test_the_token_goes_along_and_shows_nowhere(connect: Connect) -> None:
    board = Board(OK)
    with connect(board) as connection:
        connection.send("GET", "/v1/info")
        assert TOKEN not in repr(connection)
    assert board.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr(AgentAddress("https://board:8443", TOKEN, "PEM"))


def test_no_proxy_is_asked(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with connect(Board(OK)) as connection:
        assert connection._client._mounts == {}


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_board_is_asked_again_when_it_said(connect: Connect, status: int) -> None:
    board = Board(refused(status, retry_after="7"), refused(status, retry_after="3"), OK)
    with connect(board) as connection:
        assert connection.send("GET", "/v1/info").status_code == 200
    assert board.slept == [7.0, 3.0]
    assert "the line is full" in board.told[0]
    assert "7 s" in board.told[0]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 1.0), ("0", 1.0), ("-5", 1.0), ("nan", 1.0), ("soon", 1.0), ("1e9", 120.0), ("2.5", 2.5)],
)
def test_what_a_board_may_say_of_when(connect: Connect, header: str, seconds: float) -> None:
    board = Board(refused(429, retry_after=header), OK)
    with connect(board) as connection:
        connection.send("GET", "/v1/info")
    assert board.slept == [seconds]


def test_a_date_says_when_too(connect: Connect) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    board = Board(refused(429, retry_after=date), OK)
    with connect(board) as connection:
        connection.send("GET", "/v1/info")
    assert 30 < board.slept[0] <= 60


@pytest.mark.parametrize(("status", "limit"), [(429, PATIENCE.busy_seconds), (503, PATIENCE.lost_seconds)])
def test_patience_with_a_busy_board_ends(connect: Connect, status: int, limit: float) -> None:
    board = Board(refused(status, retry_after="10"))
    with connect(board) as connection, pytest.raises(UnreachableError, match="the line is full"):
        connection.send("GET", "/v1/info")
    assert board.now == limit


@pytest.mark.parametrize(
    "lost", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError]
)
def test_what_got_lost_is_sent_again(connect: Connect, lost: type[Exception]) -> None:
    board = Board(lost, lost, OK)
    with connect(board) as connection:
        assert connection.send("PUT", "/v1/jobs/1", JsonBody(Refusal(code="a", message="b"))).is_success
    assert len(board.requests) == 3
    assert len({*board.bodies}) == 1
    assert board.slept == [0.05, 0.1]


@pytest.mark.parametrize("answer", [httpx.ConnectError, httpx.Response(502), refused(408)])
def test_patience_with_a_silent_board_ends(connect: Connect, answer: Answer) -> None:
    board = Board(answer)
    with connect(board) as connection, pytest.raises(UnreachableError, match="device-bench serve"):
        connection.send("GET", "/v1/info")
    assert PATIENCE.lost_seconds <= board.now <= PATIENCE.lost_seconds + 5
    assert len(board.requests) < 40, "pauses grow"


def test_silence_is_counted_from_the_last_answer(connect: Connect) -> None:
    silence: list[Answer] = [httpx.ConnectError] * 20
    board = Board(*silence, refused(429, retry_after="1"), *silence, OK)
    with connect(board) as connection:
        assert connection.send("GET", "/v1/info").is_success
    assert board.now > PATIENCE.lost_seconds


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 507])
def test_a_refusal_is_passed_on_in_the_agents_words(connect: Connect, status: int) -> None:
    board = Board(refused(status))
    with connect(board) as connection, pytest.raises(RefusedError, match="the line is full") as caught:
        connection.send("GET", "/v1/info")
    assert (caught.value.status, caught.value.code, caught.value.exit_code) == (status, "why", 2)
    assert board.slept == []
    assert ("edgeloop targets add" in str(caught.value)) == (status == 401)


def test_a_refusal_that_the_caller_wants_is_returned(connect: Connect) -> None:
    with connect(Board(refused(404))) as connection:
        assert connection.send("HEAD", "/v1/artifacts/1", allowed=(404,)).status_code == 404


def test_an_answer_that_is_no_agents(connect: Connect) -> None:
    board = Board(httpx.Response(403, text="<html>A proxy\nsays no</html>"))
    with connect(board) as connection, pytest.raises(RefusedError, match="HTTP 403 <html>A proxy says no"):
        connection.send("GET", "/v1/info")


def test_a_redirection_is_not_followed(connect: Connect) -> None:
    board = Board(httpx.Response(307, headers={"location": "https://elsewhere/"}))
    with connect(board) as connection, pytest.raises(RefusedError, match="HTTP 307"):
        connection.send("GET", "/v1/info")
    assert len(board.requests) == 1


def test_a_file_says_its_length_and_is_read_anew_for_each_attempt(connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 9000)
    board = Board(httpx.WriteError, httpx.Response(201))
    with connect(board) as connection:
        connection.send("PUT", "/v1/artifacts/1", FileBody(path, path.stat().st_size))
    assert board.bodies == [path.read_bytes()] * 2
    assert board.requests[1].headers["content-length"] == str(path.stat().st_size)
    assert "transfer-encoding" not in board.requests[1].headers


def test_a_download_that_broke_begins_anew(connect: Connect, tmp_path: Path) -> None:
    class Broken(httpx.SyncByteStream):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield b"half of"
            raise httpx.ReadError("gone")

    board = Board(httpx.Response(200, stream=Broken()), httpx.Response(200, content=b"all of it"))
    path = tmp_path / "file"
    with connect(board) as connection, path.open("wb+") as file:
        assert connection.download("/v1/artifacts/1", file).is_success
    assert path.read_bytes() == b"all of it"
