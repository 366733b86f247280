"""The self-contained HTML reports of a run and of two side by side: they open offline and ask for nothing."""

from __future__ import annotations

from pipeline.report.document import render_report, write_report
from pipeline.report.side_by_side import render_comparison, write_comparison

__all__ = ["render_comparison", "render_report", "write_comparison", "write_report"]
