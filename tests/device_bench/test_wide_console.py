"""Where results are printed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from rich.table import Table

from device_bench.screen import wide_console

LONG = "a-run-with-a-name-that-is-longer-than-a-terminal-of-eighty-columns-" * 2


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    table = Table("run")
    table.add_row(LONG)
    wide_console().print(table)
    return capsys.readouterr().out


def test_a_pipe_has_no_width_to_cut_names_by(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert LONG in printed(capsys)


def test_columns_in_the_environment_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = printed(capsys)
    assert LONG not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_program_whose_output_is_read_by_another_prints_whole_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    program = f"from device_bench.screen import wide_console; wide_console(stderr=True).print({LONG!r})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stderr == f"{LONG}\n"
    assert done.stdout == ""
