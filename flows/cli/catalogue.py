"""`edgeloop models` and `data`: what there is to choose from."""

from __future__ import annotations

from flows.cli.guard import guarded, typer


def models() -> None:
    """The models of the zoo."""

    def run() -> int:
        from flows.catalogue import show_models

        show_models()
        return 0

    raise typer.Exit(guarded(run, False))


def data() -> None:
    """The data sets that are known by name."""

    def run() -> int:
        from flows.catalogue import show_data

        show_data()
        return 0

    raise typer.Exit(guarded(run, False))
