"""What every page is made with: templates, style, frames of the plots, and the file at the end."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from device_bench.errors import MissingExtraError, RunError
from pipeline.report import pareto, samples, search_curve

if TYPE_CHECKING:
    from jinja2 import Template

Frame = dict[str, float]
FRAME: Frame = {
    "width": pareto.WIDTH,
    "height": pareto.HEIGHT,
    "left": pareto.LEFT,
    "right": pareto.RIGHT,
    "top": pareto.TOP,
    "bottom": pareto.BOTTOM,
}
SAMPLE_FRAME: Frame = {"width": samples.WIDTH, "left": samples.LEFT, "right": samples.RIGHT}
SEARCH_FRAME: Frame = {
    "width": search_curve.WIDTH,
    "height": search_curve.HEIGHT,
    "left": search_curve.LEFT,
    "right": search_curve.RIGHT,
    "bottom": search_curve.BOTTOM,
}


def template(name: str) -> Template:
    """A page's template; what goes into it is escaped, and what it asks for must be given.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("jinja2", "pipeline") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def own_text(name: str) -> str:
    """A style or a script of ours: the only text that goes into a page unescaped."""
    return (files("pipeline.report") / "templates" / name).read_text(encoding="utf-8")


def write_page(text: str, path: Path, what: str) -> None:
    """Write a page; an older one is replaced.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(
            f"cannot write the {what} to {path}: {error.strerror}; free space or choose another folder"
        ) from error
