"""What cannot be used is refused: one clear message, the right exit code, nothing left behind."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import Result
from onnx import TensorProto, helper
from safetensors.torch import load_file, save_file

from flows.cli import app
from flows.compression.job import CompressJob

BAD_USE, FAILURE = 2, 3
NETS = """
from torch import nn

class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        wrong = x.flatten(1) @ x.flatten(1)  # the line
        return self.layer(wrong)

def build():
    return Decides()

def load():
    raise OSError("the sensor's files are gone")
"""


def invoke(*arguments: object) -> Result:
    """Run the command in this process."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["compress", *map(str, arguments)])


def refused(result: Result, *words: str, code: int = BAD_USE) -> None:
    """The exit code is right, and standard error is one message with these words and no traceback."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stderr.count("error:") == 1
    missing = [word for word in words if word not in result.stderr]
    assert not missing, f"{missing} not in: {result.stderr}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "resnet2"], ["unknown model 'resnet2'", "did you mean", "resnet20", "module:callable"]),
        (["--data", "digit"], ["unknown data set 'digit'", "did you mean digits", "cifar10"]),
        (["--target", "local-onx"], ["unknown target 'local-onx'", "local-onnxruntime", "local-litert"]),
        (["--policy", "gredy"], ["unknown policy 'gredy'", "did you mean greedy", "tpe"]),
        (["--trials", "0"], ["trials must", "greater than or equal to 1", "got 0"]),
        (["--max-drop", "-1"], ["budget.max_drop must", "greater than or equal to 0", "got -1"]),
        (["--recovery-epochs", "inf"], ["recovery_epochs must", "finite", "got inf"]),
        (["--weights", "nowhere.safetensors"], ["nowhere.safetensors does not exist", ".safetensors"]),
        (["nowhere.onnx"], ["nowhere.onnx does not exist", "ONNX"]),
        (["nowhere.toml"], ["nowhere.toml does not exist"]),
        (["--resume", "nowhere"], ["nowhere holds no run", "runs/<id>"]),
        (["some.onnx", "--model", "cnn"], ["given twice", "some.onnx", "--model cnn"]),
        (["job.toml", "--resume", "nowhere"], ["--resume", "job.toml", "leave one out"]),
        (
            ["--runner", "dask", "--scheduler", "tcp://127.0.0.1:1"],
            ["no Dask scheduler answers at tcp://127.0.0.1:1", "dask scheduler"],
        ),
        (
            ["--target", "local-litert", "--target", "local-litert"],
            ["local-litert is given 2 times", "give it once"],
        ),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith(("-", "n", "s", "j")) else "",
)
def test_flags(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    refused(invoke(*arguments, *([] if "--resume" in arguments else ["--out", tmp_path])), *words)
    assert list(tmp_path.iterdir()) == []


def test_unknown_flag_names_the_nearest() -> None:
    result = invoke("--modle", "cnn")
    assert result.exit_code == BAD_USE
    assert "--modle" in result.stderr
    assert "--model" in result.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("trails = 3", ["unknown job key 'trails'", "did you mean trials"]),
        ("[budget]\nmax_drp = 1", ["unknown budget key 'max_drp'", "did you mean max_drop"]),
        ("budget = 3", ["budget must be a table", "max_drop", "got 3"]),
        ("trials = \nseed = 1", ["not valid TOML", "line 1"]),
        ("targets = []", ["targets must", "at least 1"]),
        ('trials = "many"', ["trials must", "integer", "got 'many'"]),
    ],
)
def test_job_file(content: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(content)
    refused(invoke(path, "--out", tmp_path / "runs"), *words)
    assert not (tmp_path / "runs").exists()


def test_the_version_is_told() -> None:
    from typer.testing import CliRunner

    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.output) == (0, f"edgeloop {version('edgeloop')}\n")


def test_out_is_a_file(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    place.write_text("mine")
    refused(invoke("--out", place), str(place), "--out", "may write", code=FAILURE)
    assert place.read_text() == "mine"


@pytest.fixture
def earlier_run(tmp_path: Path) -> Path:
    """The folder of a run that was started and got nowhere."""
    run = tmp_path / "20260101-000000-cnn-digits"
    run.mkdir()
    (run / "job.json").write_text(CompressJob().model_dump_json())
    return run


def test_resume_takes_no_other_flags(earlier_run: Path) -> None:
    refused(
        invoke("--resume", earlier_run, "--trials", 3, "--max-drop", 2), "--trials", "--max-drop", "leave"
    )


def test_resume_of_a_damaged_job(earlier_run: Path) -> None:
    (earlier_run / "job.json").write_text('{"model": "cnn", "tri')
    refused(invoke("--resume", earlier_run), "job.json cannot be read", "new run")


def test_resume_without_its_data_loses_nothing(earlier_run: Path, from_there: None) -> None:
    job = CompressJob(data="spoken-digits", data_root="nowhere")
    (earlier_run / "job.json").write_text(job.model_dump_json())
    refused(invoke("--resume", earlier_run), "data folder nowhere does not exist", "--data-root")
    assert (earlier_run / "job.json").is_file()


def test_second_process_in_the_same_folder(earlier_run: Path) -> None:
    with (earlier_run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(invoke("--resume", earlier_run), "another process", str(earlier_run), "wait for it")


# What follows is found by the run itself, behind Prefect.


@pytest.fixture
def from_there(bad_files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in the folder of bad files; load no converter, which none of these runs gets to use."""
    monkeypatch.chdir(bad_files)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("exporters.litert_library.warm_up", lambda: None)
    yield
    sys.modules.pop("nets", None)


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of things that look right from outside."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "nets.py").write_text(NETS)
    (folder / "data" / "fashion_mnist").mkdir(parents=True)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        for suffix in ("", ".gz"):
            (folder / "data" / "fashion_mnist" / f"{name}{suffix}").write_bytes(b"\x00\x01 half of it")
    (folder / "data" / "spoken_digits.npz").write_bytes(b"PK\x03\x04 half of it")
    samples = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    answers = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])
    node = helper.make_node("CumProdOf", ["x"], ["y"], domain="acme")
    graph = helper.make_graph([node], "g", [samples], [answers])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "unsupported.onnx")
    (folder / "truncated.onnx").write_bytes((folder / "unsupported.onnx").read_bytes()[:40])
    return folder


@pytest.fixture(scope="module")
def wrong_weights(bad_files: Path, weights: Callable[[str], Path]) -> Path:
    """Weights of the small CNN, but one has another name and one another shape."""
    state = load_file(weights("cnn"))
    first, second = [key for key in state if key.endswith("weight")][:2]
    state["renamed.weight"] = state.pop(first)
    state[second] = torch.zeros(3)
    save_file(state, bad_files / "wrong.safetensors")
    return bad_files / "wrong.safetensors"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--weights", "wrong.safetensors"],
            ["wrong.safetensors do not fit", "missing: features.0.weight", "unexpected: renamed.weight"],
        ),
        (["--weights", "nets.py"], ["nets.py must be a .safetensors file"]),
        (["truncated.onnx"], ["truncated.onnx", "truncated or no ONNX file"]),
        (["unsupported.onnx"], ["unsupported.onnx", "CumProdOf"]),
        (["--model", "nets:build"], ["nets:build", "nets.py:10"]),
        (["--model", "nets:bild"], ["'nets' has no callable 'bild'", "it has:", "build"]),
        (["--model", "nowhere:build"], ["'nowhere' of 'nowhere:build' cannot be imported"]),
        (["--data", "nets:load"], ["data callable 'nets:load' failed", "the sensor's files are gone"]),
        (["--data", "cifar10-jpeg"], ["cifar10-jpeg", "--data-root", "EDGELOOP_DATA"]),
        (["--data", "cifar10-jpeg", "--data-root", "none"], ["none does not exist", "--data-root"]),
        (
            ["--data", "cifar10-jpeg", "--data-root", "data"],
            ["cifar10_jpeg_train.npz does not exist", "--data-root"],
        ),
        (["--data", "spoken-digits", "--data-root", "data"], ["spoken_digits.npz is damaged"]),
        (["--data", "fashion-mnist", "--data-root", "data"], ["train-images-idx3-ubyte", "is damaged"]),
    ],
    ids=lambda value: " ".join(value[:2]) if len(value) < 5 and value[0][0] in "-tu" else "",
)
def test_found_by_the_run(
    arguments: list[str], words: list[str], wrong_weights: Path, tmp_path: Path, from_there: None
) -> None:
    runs = tmp_path / "runs"
    refused(invoke(*arguments, "--out", runs), *words)
    assert list(runs.iterdir()) == [], "a refused job leaves no folder"
