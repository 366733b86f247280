"""What Prefect's page of a finished run says: the verdict, the figures, the Pareto pictures, the files."""

from __future__ import annotations

import socket
from base64 import b64encode
from pathlib import Path

from pipeline.report.pareto_picture import pareto_svg
from pipeline.report.verdict import headline
from pipeline.report.wording import FORM_NAMES, bytes_text, forms, interval, milliseconds, score
from pipeline.result import Entry, RunResult, TargetResult

# What people look for in a run's folder, the first one first.
FILES = {
    "report.html": "the report; it opens offline",
    "result.json": "all figures, for programs",
    "model.int8.onnx": "the INT8 file for ONNX Runtime",
    "model.int8.tflite": "the INT8 file for LiteRT",
    "model.onnx": "the same network in float",
    "trials.jsonl": "every trial, a line each",
}


def run_page(result: RunResult, folder: Path) -> str:
    """The page as Markdown; pictures are within it, so that it shows them on any machine.

    Args:
        result: what the run found.
        folder: the run's folder, on this machine.
    """
    said = headline(result)
    lines = [f"# {said.title}", "", f"**{said.verdict}.** {said.sentence}", ""]
    lines += [f"- {name} went away: {reason}" for name, reason in result.lost.items()]
    lines += [
        f"- Missed on {name}: {miss}" for name, found in result.targets.items() for miss in found.misses
    ]
    lines += ["", *_figures(result), ""]
    for name in result.targets:
        lines += [f"## {name}", "", f"![Pareto front on {name}]({_inline(pareto_svg(result, name))})", ""]
    return "\n".join([*lines, *_files(folder), ""])


def _figures(result: RunResult) -> list[str]:
    lines = [
        f"| target | file | {result.metric} | p50 | vs plain INT8 | size | memory |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for name, found in result.targets.items():
        for kind, entry in forms(found).items():
            cells = (name, FORM_NAMES[kind], *_cells(result, entry, _versus(found, kind)))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(result: RunResult, entry: Entry, versus: str) -> tuple[str, ...]:
    return (
        score(entry.accuracy, result),
        milliseconds(entry.p50_ms),
        versus,
        bytes_text(entry.artifact_bytes),
        bytes_text(entry.peak_memory_bytes),
    )


def _versus(found: TargetResult, kind: str) -> str:
    speed = found.speedup_vs_plain_int8
    if kind != "chosen" or speed is None:
        return ""
    return f"{speed.ratio:.2f}× ({interval(speed.low, speed.high)})"


def _files(folder: Path) -> list[str]:
    """Links to the run's files, and the commands that show them."""
    place = folder.absolute()
    there = {name: what for name, what in FILES.items() if (place / name).is_file()}
    return [
        "## Files",
        "",
        f"On `{socket.gethostname()}`, in `{place}`. There, `edgeloop report {place} --open` opens",
        f"the report and `edgeloop runs show {place}` shows every trial. To open a link below, copy it: a",
        "browser does not follow it from a page of a server.",
        "",
        *(f"- [{name}]({(place / name).as_uri()}): {what}" for name, what in there.items()),
    ]


def _inline(svg: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
