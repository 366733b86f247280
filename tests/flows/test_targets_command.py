"""Boards by name, with a real agent on loopback: paired, listed, checked, measured on, forgotten."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result
from live_agent import LiveAgent, running, small_onnx

from device_bench.known_models import KNOWN_MODELS
from device_bench.protocol import BenchRequest, Comparison, Measurement, Rounds, TimingPolicy
from device_bench.wire import Pairing
from flows.cli import app
from pipeline.result import RunResult

Command = Callable[..., subprocess.CompletedProcess[str]]

SHORT = TimingPolicy(warmup_seconds=0.0, min_samples=8, min_seconds=0.01, max_seconds=5.0)
# What the board's own answer to "what are you" says, in the agent's process.
EMULATED = """
from device_bench import sensors
real = sensors.device_info
sensors.device_info = lambda *given: real(*given).model_copy(update={"emulated": True})
"""


def command(*arguments: object, stdin: str | None = None) -> Result:
    """Run the command in this process."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    return CliRunner().invoke(app, [*map(str, arguments)], input=stdin)


def line_of(agent: LiveAgent) -> str:
    """The pairing line that `device-bench init` printed."""
    return Pairing(fingerprint=agent.fingerprint, token=agent.token).line()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveAgent]:
    with running(tmp_path_factory.mktemp("agent")) as found:
        yield found


@pytest.fixture(autouse=True)
def own_book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A book of this test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "edgeloop"


@pytest.fixture
def board(agent: LiveAgent) -> LiveAgent:
    """The agent, paired with as `board`."""
    added = command("targets", "add", "board", agent.url, "--pair", line_of(agent))
    assert added.exit_code == 0, added.output
    assert "board-onnxruntime, board-litert" in added.stdout
    assert agent.token not in added.output
    return agent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.measuring.bench.BenchRequest", partial(BenchRequest, timing=SHORT))
    monkeypatch.setattr("flows.measuring.bench.ROUNDS", Rounds(count=3, seconds=0.02))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(small_onnx())
    return path


def test_a_board_is_listed_with_the_targets_that_it_makes(board: LiveAgent) -> None:
    for words in (["targets"], ["targets", "list"]):
        listed = command(*words)
        assert listed.exit_code == 0, listed.output
        rows = {row.split()[1]: row for row in listed.stdout.splitlines() if row.startswith("│")}
        assert {"local-litert", "board-litert", "board-onnxruntime"} <= set(rows)
        assert board.url in rows["board-litert"]
        assert board.token not in listed.output


def test_the_line_may_come_from_standard_input(agent: LiveAgent, own_book: Path) -> None:
    added = command("targets", "add", "board", agent.url, "--pair", "-", stdin=line_of(agent) + "\n")
    assert added.exit_code == 0, added.output
    assert agent.url in (own_book / "targets.json").read_text()


def test_a_board_that_was_removed_is_unknown(board: LiveAgent, model: Path) -> None:
    assert command("targets", "remove", "board").exit_code == 0
    assert "board" not in command("targets").stdout
    for words in (["targets", "check", "board"], ["bench", model, "--target", "board"]):
        refused = command(*words)
        assert refused.exit_code == 2
        assert "unknown" in refused.stderr


def test_check(board: LiveAgent) -> None:
    checked = command("targets", "check", "board")
    assert checked.exit_code == 0, checked.output
    rows = {row.strip("│ ").partition("│")[0].strip(): row for row in checked.stdout.splitlines()}
    assert {"certificate", "agent", "version", "clock", "device", "state"} <= set(rows)
    for model in KNOWN_MODELS:
        assert "answers as it should" in rows[model.file]
    assert "failed" not in checked.stdout
    assert board.token not in checked.output


def test_check_of_this_machine() -> None:
    checked = command("targets", "check", "local")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("answers as it should") == len(KNOWN_MODELS)


def test_check_finds_wrong_answers(board: LiveAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    strict = tuple(model._replace(tolerance=-1.0) for model in KNOWN_MODELS)
    monkeypatch.setattr("flows.measuring.target_check.KNOWN_MODELS", strict)
    checked = command("targets", "check", "board")
    assert checked.exit_code == 3
    assert checked.stdout.count("wrong answers") == len(KNOWN_MODELS)


def test_check_of_a_board_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path / "agent") as agent:
        assert command("targets", "add", "gone", agent.url, "--pair", line_of(agent)).exit_code == 0
    checked = command("targets", "check", "gone")
    assert checked.exit_code == 3
    assert "cannot reach" in checked.stdout
    assert "failed" in checked.stdout


def test_check_with_a_token_that_was_revoked(board: LiveAgent, own_book: Path) -> None:
    secrets = own_book / "credentials.json"
    secrets.write_text(secrets.read_text().replace(board.token, "x" * 43))
    checked = command("targets", "check", "board")
    assert checked.exit_code == 3
    assert "edgeloop targets add" in " ".join(checked.stdout.replace("│", " ").split())


@pytest.mark.parametrize(
    ("name", "url", "pair", "words"),
    [
        ("board", "URL", "edgeloop-pair-1:nonsense", "this is no pairing line"),
        ("board", "URL", "OTHER", "pair with the line"),
        ("board", "http://127.0.0.1:1", "LINE", "must be https://"),
        ("Board", "URL", "LINE", "a device's name must be"),
        ("local", "URL", "LINE", "cannot be a device's name"),
    ],
)
def test_bad_use_of_add(agent: LiveAgent, own_book: Path, name: str, url: str, pair: str, words: str) -> None:
    other = Pairing(fingerprint="0" * 64, token=agent.token).line()
    pair = {"LINE": line_of(agent), "OTHER": other}.get(pair, pair)
    refused = command("targets", "add", name, url.replace("URL", agent.url), "--pair", pair)
    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr
    assert agent.token not in refused.output
    assert not own_book.exists()


def test_nobody_to_pair_with(agent: LiveAgent) -> None:
    refused = command("targets", "add", "board", "https://127.0.0.1:9", "--pair", line_of(agent))
    assert refused.exit_code == 3
    assert "cannot reach" in refused.stderr


@pytest.mark.usefixtures("quick")
def test_bench_on_a_board_and_here_in_one_table(board: LiveAgent, model: Path) -> None:
    done = command("bench", model, "--target", "board", "--target", "local-onnxruntime", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["board-onnxruntime", "local-onnxruntime"]
    assert all(Measurement.model_validate(outcome) for outcome in found.values())
    assert board.token not in done.output


@pytest.mark.usefixtures("quick")
def test_two_files_are_compared_each_by_the_runtime_that_reads_it(board: LiveAgent) -> None:
    files = {model.file: model.path for model in KNOWN_MODELS}
    arguments = ["bench", files["int8.tflite"], "--target", "board", "--target", "local-litert"]
    done = command(*arguments, "--compare", files["int8.onnx"], "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {name: list(table) for name, table in found.items()} == {
        "first": ["board-litert", "local-litert"],
        "second": ["board-onnxruntime", "local-onnxruntime"],
        "comparison": ["board-litert", "local-litert"],
    }
    assert all(Comparison.model_validate(outcome).rounds == 3 for outcome in found["comparison"].values())
    assert "int8.tflite against int8.onnx" in done.stderr


@pytest.mark.usefixtures("quick")
def test_a_file_that_does_not_run_there_is_no_comparison(
    board: LiveAgent, model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    done = command("bench", model, "--target", "board", "--compare", broken)
    assert done.exit_code == 3
    assert done.stdout.count("not_a_model") == 2


def test_a_runtime_that_reads_no_such_file(board: LiveAgent, model: Path) -> None:
    refused = command("bench", model, "--target", "board-litert")
    assert refused.exit_code == 2
    assert "board-litert runs .tflite files" in refused.stderr


def test_no_search_on_an_emulated_board(tmp_path: Path) -> None:
    with running(tmp_path / "agent", prelude=EMULATED) as agent:
        added = command("targets", "add", "unreal", agent.url, "--pair", line_of(agent))
        assert "emulated" in added.stdout
        assert "emulated" in command("targets", "check", "unreal").stdout
        refused = command("compress", "--target", "unreal", "--out", tmp_path / "runs")
    assert refused.exit_code == 2
    assert "unreal-onnxruntime is an emulated device" in refused.stderr
    assert not (tmp_path / "runs").exists()


def test_compress_for_a_board_searches_and_proves_there(
    board: LiveAgent,
    edgeloop: Command,
    weights: Callable[[str], Path],
    only_run: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    done = edgeloop(
        *("compress", "--model", "cnn", "--data", "digits", "--weights", weights("cnn")),
        *("--target", "board-onnxruntime", "--trials", 1, "--recovery-epochs", 0, "--policy", "uniform"),
        *("--max-drop", 100, "--out", tmp_path / "runs"),
        cwd=tmp_path,
    )
    assert done.returncode in (0, 1), done.stderr
    result = RunResult.model_validate_json((only_run(tmp_path / "runs") / "result.json").read_text())
    assert list(result.targets) == ["board-onnxruntime"]
    jobs = board.log.read_text()
    # The plain INT8 export and one plan in the search; three files and their predictions in the proof.
    assert jobs.count("(measure) is done") >= 5
    assert jobs.count("(predict) is done") >= 6
    assert jobs.count("(compare) is done") >= 1
    written = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert [path for path in written if board.token.encode() in path.read_bytes()] == []
    assert board.token not in done.stdout + done.stderr
