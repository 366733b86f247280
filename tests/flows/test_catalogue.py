"""What there is to choose from is listed, and what is listed can be chosen."""

from __future__ import annotations

import importlib.util

import pytest
from click.testing import Result

from flows.cli import app
from pipeline.data import DATASETS
from pipeline.target import LOCAL_TARGETS
from pipeline.zoo import MODELS


def listed(command: str) -> str:
    """What the command prints on standard output."""
    # Imported here, after flows.cli, which silences a warning of typer's own first import.
    from typer.testing import CliRunner

    result: Result = CliRunner().invoke(app, [command])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize(
    ("command", "names"), [("models", MODELS), ("data", DATASETS), ("targets", LOCAL_TARGETS)]
)
def test_every_name_is_listed(command: str, names: dict[str, object]) -> None:
    lines = listed(command).splitlines()
    assert [name for name in names if not any(f" {name} " in line for line in lines)] == []


def test_data_says_what_needs_files() -> None:
    by_name = {line.split()[1]: line for line in listed("data").splitlines() if line.startswith("│")}
    assert " no " in by_name["digits"]
    assert " yes " in by_name["fashion-mnist"]


def test_a_target_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ai_edge_litert" else real(name)
    )
    by_name = {line.split()[1]: line for line in listed("targets").splitlines() if line.startswith("│")}
    assert 'pip install "edgeloop[litert]"' in by_name["local-litert"]
    assert "pip install" not in by_name["local-onnxruntime"]
