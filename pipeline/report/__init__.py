"""The self-contained HTML report of a run: it opens offline and asks for nothing."""

from __future__ import annotations

from pipeline.report.document import render_report, write_report

__all__ = ["render_report", "write_report"]
