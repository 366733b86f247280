"""docs/troubleshooting.md: each message in it is one that edgeloop can say, and each command one it has.

The commands of some guides, too.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import click
import pytest

from flows.cli import app
from flows.cli.guard import typer

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
GUIDES = [ROOT / "docs" / "guides" / name for name in ("results.md", "stores.md")]
ROOMS = ("device_bench", "pipeline", "exporters", "flows")
# Stands for what a message puts in.
HOLE = "\0"


def messages() -> list[str]:
    """The first cells of all tables."""
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    return [found.group(1) for row in rows if (found := re.match(r"\| `(.+?)` *\|", row)) is not None]


@cache
def sayings() -> tuple[str, ...]:
    """Every text in the source, with holes for what is put in."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(map(_piece, node.values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(re.sub(r"%[.\d]*[sdfgr]", HOLE, node.value))
    # Markdown has no backticks within backticks; the source may have them.
    return tuple(text.replace("`", "") for text in found)


def _piece(part: ast.expr) -> str:
    return str(part.value) if isinstance(part, ast.Constant) else HOLE


def is_said(message: str) -> bool:
    """True if some text in the source is this message, its holes for the dots."""
    parts = message.split("…")
    pattern = re.compile(".*?".join(map(re.escape, parts)), re.DOTALL)
    longest = max(parts, key=len)
    return any(longest in text and pattern.search(text) for text in sayings())


@pytest.mark.parametrize("message", messages())
def test_the_source_can_say_it(message: str) -> None:
    assert is_said(message), f"nothing in {', '.join(ROOMS)} says {message!r}"
    assert len(message.replace("…", "")) >= 7, "too little to be found by"


def test_what_nobody_says_is_not_found() -> None:
    assert not is_said("the moon … is too far")
    assert not is_said("known: …; unknown …")


def test_the_page_has_rows_and_each_is_whole() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert len(messages()) > 60
    assert {row.count("|") for row in rows} == {4}


def commands() -> list[list[str]]:
    """The words after each `edgeloop`, in code spans and code blocks."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in (PAGE, *GUIDES))
    code = re.findall(r"`([^`]+)`|^    (edgeloop .*?)(?:  .*)?$", text, re.MULTILINE)
    lines = [span or block for span, block in code]
    return [line.split()[1:] for line in lines if line.startswith("edgeloop ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_there_with_its_options(words: list[str]) -> None:
    command: click.Command = typer.main.get_command(app)
    for place, word in enumerate(words):
        if not isinstance(command, click.Group):
            break
        assert word in command.commands, f"there is no `edgeloop {' '.join(words[: place + 1])}`"
        command = command.commands[word]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
