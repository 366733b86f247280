"""`edgeloop runs compare`: two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Ask = Callable[..., Result]
Make = Callable[..., Path]

A, B = "20260105-100000-resnet20-digits", "20260106-090000-resnet20-digits"


def test_what_the_plans_differ_by_is_told_apart_from_the_machine(ask: Ask, finished: Make) -> None:
    # The machine was half as fast when B ran; its plan is 1.5 times as good.
    finished(A, keep_ratio=0.75, speedup=2.0, plain_ms=0.4)
    finished(B, keep_ratio=0.5, speedup=3.0, plain_ms=0.8)
    shown = ask("runs", "compare", "0105", "0106").stdout
    rows = {line.split("  ")[0].strip(): line for line in shown.splitlines() if line.strip()}
    assert rows["p50"].split()[1:] == ["0.200", "ms", "0.267", "ms", "1.33×"]
    assert rows["p50 of plain INT8"].endswith("2.00×")
    assert rows["vs plain INT8"].endswith("1.50× (1.46–1.54)")
    assert rows["accuracy"].split()[1:] == ["89.75", "89.50", "−0.25"]
    assert "B's file is 1.50× faster" in shown
    assert "conv1: 75 % in A, 50 % in B" in shown


def test_json_is_the_stored_form(ask: Ask, finished: Make) -> None:
    finished(A, speedup=2.0)
    finished(B, speedup=2.0, threads=4)
    told = json.loads(ask("runs", "compare", A, B, "--json").stdout)
    found = told["targets"]["local-litert"]
    assert (told["schema_version"], told["a"], told["b"]) == (1, A, B)
    assert found["same_plan"] is True
    assert found["kept"] == {}
    assert found["conditions"] == {"threads": {"schema_version": 1, "a": "1", "b": "4"}}
    assert found["faster"] is None, "plain INT8 ran with other threads: no common measure"


def test_without_a_common_measure_it_says_what_is_not_known(ask: Ask, finished: Make) -> None:
    finished(A)
    finished(B, threads=4)
    shown = ask("runs", "compare", A, B).stdout
    assert "how much of the difference is the machine's is not known" in shown
    assert "threads: 1 in A, 4 in B" in shown
    assert "Both chose the same plan." in shown


def test_equal_speed_is_no_difference(ask: Ask, finished: Make) -> None:
    finished(A, speedup=2.0)
    finished(B, speedup=2.02)
    assert "no difference in speed is shown" in ask("runs", "compare", A, B).stdout


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("resnet20-digits", "are the same run"),
        ("cnn", "is not finished, and has no result yet; go on with: edgeloop compress --resume"),
        ("20261", "unknown run '20261'"),
    ],
)
def test_what_cannot_be_compared_says_why(
    second: str, message: str, ask: Ask, finished: Make, unfinished: Make
) -> None:
    finished(A)
    unfinished()
    assert message in ask("runs", "compare", A, second, code=2).stderr


def test_html_is_a_page_beside_what_is_printed(ask: Ask, finished: Make, tmp_path: Path) -> None:
    finished(A, speedup=2.0)
    finished(B, speedup=3.0)
    page = tmp_path / "both.html"
    assert f"as a page: {page}" in ask("runs", "compare", A, B, "--html", page).stdout
    text = page.read_text(encoding="utf-8")
    assert A in text
    assert B in text
    assert "B&#39;s file is 1.50× faster" in text
    json.loads(ask("runs", "compare", A, B, "--html", page, "--json").stdout)
    said = ask("runs", "compare", A, B, "--html", tmp_path / "no" / "both.html", code=3).stderr
    assert "cannot write the comparison to" in said
