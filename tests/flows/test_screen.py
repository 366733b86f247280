"""What a person sees of a run: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from flows.screen import Screen


def shown(terminal: bool, width: int = 100) -> str:
    """The text of a short run; on a terminal with all that was drawn over."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, color_system=None)
    with Screen(console, Path("runs") / "one") as screen:
        screen.stage("probes", 4)
        for done in range(4):
            screen.advance(done, f"unit [b] at 50 % ({done + 1} of 4)")
        screen.best("trial 1: 1.50× on local-litert")
        screen.note("weights [4, 4] are others'")
        logging.getLogger("pipeline.somewhere").warning("the cache %s cannot be read", "[x]")
        screen.stage("trials", 2)
        screen.advance(1, "trial 2 of 2")
        assert screen.notes == ["weights [4, 4] are others'"]
    return file.getvalue()


def test_plain_lines() -> None:
    assert shown(terminal=False).splitlines() == [
        "run folder: runs/one",
        "probes …",
        "  unit [b] at 50 % (1 of 4)",
        "  unit [b] at 50 % (2 of 4)",
        "  unit [b] at 50 % (3 of 4)",
        "  unit [b] at 50 % (4 of 4)",
        "  best so far: trial 1: 1.50× on local-litert",
        "note: weights [4, 4] are others'",
        "warning: the cache [x] cannot be read",
        "trials …",
        "  trial 2 of 2",
    ]


@pytest.mark.parametrize("width", [40, 100])
def test_live(width: int) -> None:
    text = shown(terminal=True, width=width)
    for words in ("left", "unit [b] at 50 % (4 of 4)", "best so far: trial 1", "trial 2 of 2", "✓ trials"):
        assert words in text
    assert "✓ probes" in text
    assert "note: weights [4, 4] are others'" in text


def test_warnings_are_shown_while_the_run_lasts_only() -> None:
    before = [list(logging.getLogger(name).handlers) for name in ("pipeline", "exporters")]
    shown(terminal=False)
    assert [list(logging.getLogger(name).handlers) for name in ("pipeline", "exporters")] == before
