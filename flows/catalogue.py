"""Lists what there is to choose from."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from device_bench.screen import wide_console


def show_models() -> None:
    """Every model of the zoo with its family and default data."""
    from pipeline.zoo import MODELS

    table = _table("model", "family", "default data", "what it is")
    for model in MODELS.values():
        table.add_row(model.name, model.family, model.default_data, model.description)
    wide_console().print(table)


def show_data() -> None:
    """Every data set that is known by name."""
    from pipeline.data import DATASETS

    table = _table("data", "needs --data-root", "what it is")
    for name, entry in DATASETS.items():
        table.add_row(name, "yes" if entry.needs_root else "no", entry.description)
    wide_console().print(table)


def show_targets() -> None:
    """Every target that is known by name, and whether its runtime is installed."""
    from importlib.util import find_spec

    from pipeline.target import device_behind, known_targets
    from pipeline.target_book import default_book

    book = default_book()
    libraries = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert", "torch": "torch"}
    extras = {"torch": "pipeline"}
    table = _table("target", "where", "runtime", "accelerator", "threads", "installed")
    # What one has to type is never cut.
    table.columns[0].no_wrap, table.columns[1].overflow = True, "fold"
    table.columns[0].min_width = max(len(name) for name in known_targets(book))
    for target in known_targets(book).values():
        runtime = target.runtime.value
        device = device_behind(target, book)
        if device is not None:
            versions = {info.runtime: info.version for info in device.runtimes}
            installed = f"{versions[target.runtime]}" + (", emulated" if device.device.emulated else "")
        elif find_spec(libraries[runtime]) is not None:
            installed = "yes"
        else:
            installed = f'no: pip install "edgeloop[{extras.get(runtime, runtime)}]"'
        cells = (target.name, target.where, runtime, target.accelerator, str(target.threads), installed)
        table.add_row(*map(escape, cells))
    wide_console().print(table)


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading)
    return table
