"""From lists of tasks to a policy that is judged, promoted or kept aside, by the command line's own flow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from known_tables import write_lists

from flows.cli import app
from flows.training.meta_train_start import MetaTrainRequest, meta_train
from pipeline.policy.policy_file import load_policy_file
from pipeline.tables.task_table import TaskTable


def run(*arguments: object, code: int = 0) -> str:
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    result: Result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


# A process of its own: Prefect's log handlers keep hold of the streams of whoever imported it first.
ALONE = """
import json, sys
from pathlib import Path
from flows.training.meta_train_start import MetaTrainRequest, meta_train

given = json.loads(sys.argv[1])
paths = {name: Path(given[name]) for name in ("tasks", "out", "shipped")}
sys.exit(meta_train(MetaTrainRequest(**{**given, **paths}), as_json=sys.argv[2] == "json"))
"""


def trained_alone(request: MetaTrainRequest, *, as_json: bool) -> str:
    """What `meta_train` printed on standard output, in a process of its own."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(request).items()}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(given), "json" if as_json else "words"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_lists(tmp_path_factory.mktemp("lists"))


def request_of(lists: tuple[Path, Path], folder: Path) -> MetaTrainRequest:
    return MetaTrainRequest(lists[0], "reptile", folder / "out", updates=3, shipped=folder / "shipped")


def test_a_policy_is_trained_judged_and_promoted_and_the_same_again_is_kept_aside(
    lists: tuple[Path, Path], tmp_path: Path
) -> None:
    request = request_of(lists, tmp_path)
    told = json.loads(trained_alone(request, as_json=True))
    out = tmp_path / "out" / "reptile.safetensors"
    assert told["policy"] == str(out)
    assert [one["promoted"] for one in told["decisions"]] == [True, True]
    content = out.read_bytes()
    shipped = tmp_path / "shipped"
    assert {path.name: path.read_bytes() for path in shipped.iterdir()} == {
        "reptile.safetensors": content,
        "meta.safetensors": content,
    }
    assert json.loads((tmp_path / "out" / "reptile.learning.json").read_text())["updates"] == 3
    assert (tmp_path / "out" / "reptile.learning.svg").read_text().startswith("<svg")

    told = json.loads(trained_alone(replace(request, out=tmp_path / "again"), as_json=True))
    assert (tmp_path / "again" / "reptile.safetensors").read_bytes() == content
    assert [one["promoted"] for one in told["decisions"]] == [False, False]
    assert all("not better" in one["reason"] for one in told["decisions"])
    verdict = json.loads((tmp_path / "again" / "reptile.verdict.json").read_text())
    assert verdict["decisions"] == told["decisions"]


def test_a_setting_that_a_table_lacks_is_timed_before_the_training(tmp_path: Path) -> None:
    recorded = TaskTable.load(Path(__file__).parents[2] / "policies" / "tables" / "mlp-digits.safetensors")
    kept, wanted = "local-litert@1", "local-onnxruntime@1"
    few = slice(0, 30)
    short = TaskTable(
        recorded.header.model_copy(update={"settings": {kept: recorded.header.settings[kept]}}),
        recorded.options[few],
        recorded.accuracy[few],
        {kept: recorded.latency_ms[kept][few]},
    )
    path = tmp_path / "tables" / "mlp-digits.safetensors"
    path.parent.mkdir()
    short.save(path)
    tasks = tmp_path / "train.toml"
    tasks.write_text(f'[[task]]\nmodel = "mlp"\ndata = "digits"\nsettings = ["{wanted}"]\n', encoding="utf-8")
    request = MetaTrainRequest(tasks, "gp", tmp_path / "out", updates=1, shipped=tmp_path / "shipped")
    told = trained_alone(request, as_json=False)
    assert "time mlp-digits" in told
    timed = TaskTable.load(path)
    assert set(timed.latency_ms) == {kept, wanted}
    assert (timed.latency_ms[wanted] > 0).all()
    assert (tmp_path / "out" / "gp.safetensors").exists()


def test_without_held_out_tasks_nothing_is_replaced(lists: tuple[Path, Path], tmp_path: Path) -> None:
    alone = tmp_path / "train.toml"
    alone.write_text(f'tables = "{lists[0].parent / "tables"}"\n' + lists[0].read_text(), encoding="utf-8")
    request = replace(request_of(lists, tmp_path), tasks=alone, experience=str(tmp_path / "empty.sqlite"))
    told = trained_alone(request, as_json=False)
    assert "the policy is kept aside, and nothing is replaced" in told
    assert "empty.sqlite adds 0 tasks" in " ".join(told.split())
    assert not (tmp_path / "shipped").exists()


def test_a_training_that_was_stopped_goes_on_to_the_same_policy(
    lists: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.policy import planner_training

    monkeypatch.setattr(planner_training, "UPDATES_A_CHECKPOINT", 1)
    request = replace(request_of(lists, tmp_path), updates=4)
    assert meta_train(request, as_json=False) == 0
    whole = (tmp_path / "out" / "reptile.safetensors").read_bytes()
    original = planner_training._updated

    def killed(state: planner_training._State, *rest: object) -> planner_training._State:
        if state.done == 2:
            raise KeyboardInterrupt
        return original(state, *rest)  # type: ignore[arg-type]

    later = replace(request, out=tmp_path / "later")
    monkeypatch.setattr(planner_training, "_updated", killed)
    with pytest.raises(KeyboardInterrupt):
        meta_train(later, as_json=False)
    assert (tmp_path / "later" / ".reptile.checkpoint.safetensors").exists()
    monkeypatch.setattr(planner_training, "_updated", original)
    assert meta_train(later, as_json=False) == 0
    assert (tmp_path / "later" / "reptile.safetensors").read_bytes() == whole
    assert not (tmp_path / "later" / ".reptile.checkpoint.safetensors").exists()


def test_a_policy_is_evaluated_as_table_plot_and_json(lists: tuple[Path, Path], tmp_path: Path) -> None:
    plot = tmp_path / "curves.svg"
    told = run(
        "policy", "evaluate", "uniform", "--tasks", lists[1], "--beside", "random",
        "--seeds", 2, "--trials", 5, "--plot", plot,
    )  # fmt: skip
    assert "mean over 2 tasks" in told
    assert plot.read_text().startswith("<svg")


def test_bad_input_is_refused_with_a_way_out(lists: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"damaged")
    foreign = tmp_path / "foreign.sqlite"
    foreign.write_bytes(b"not a database, but long enough to look at" * 40)
    absent = tmp_path / "absent.toml"
    absent.write_text('[[task]]\nmodel = "cnn"\ndata = "digits"\nsettings = ["local-litert@1"]\n')
    train = ("meta-train", lists[0], "--out", tmp_path, "--updates")
    cases = {
        "unknown learner 'rl3'": (*train, 1, "--policy", "rl3"),
        "updates must be at least 1; got 0": (*train, 0, "--policy", "reptile"),
        "cannot read the task list": ("meta-train", tmp_path / "none.toml", "--policy", "reptile"),
        "experience store": (*train, 1, "--policy", "reptile", "--store", foreign),
        "is damaged or no safetensors file": (
            "policy", "evaluate", tmp_path / "bad.safetensors", "--tasks", lists[1],
        ),
        "no tables of cnn/digits": ("policy", "evaluate", "random", "--tasks", absent),
    }  # fmt: skip
    for told, arguments in cases.items():
        assert told in " ".join(run(*arguments, code=2).split()), arguments
    assert foreign.read_bytes().startswith(b"not a database")


def test_a_policy_of_another_version_is_refused(lists: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    assert meta_train(request_of(lists, tmp_path), as_json=False) == 0
    path = tmp_path / "out" / "reptile.safetensors"
    header = {"schema_version": 99, "learner": "reptile", "settings": {}}
    save_file(load_file(path), path, {"edgeloop_policy": json.dumps(header)})
    told = run("policy", "evaluate", path, "--tasks", lists[1], code=2)
    assert "schema version 99" in told
    assert load_policy_file(tmp_path / "shipped" / "meta.safetensors").learner == "reptile"
