"""`edgeloop fleet` and `edgeloop release`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer

app = typer.Typer(
    help="All devices together: who answers, and whether anything got worse.", no_args_is_help=True
)
DeviceName = Annotated[str, typer.Argument(help="What the board is called here.")]


@app.command("add")
def fleet_add(
    name: DeviceName,
    url: Annotated[str, typer.Argument(help="https://HOST:PORT of its agent.")],
    pair: Annotated[
        str, typer.Option(help="The line that `device-bench init` printed there; - reads it from stdin.")
    ],
    device_class: Annotated[
        str | None, typer.Option("--class", help="What boards like it are called: they share work.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Pair with a board's agent, and say what class of device it is."""

    def run() -> int:
        from flows.fleet.inventory import add_device

        return add_device(name, url, pair, device_class)

    raise typer.Exit(guarded(run, debug))


@app.command("remove")
def fleet_remove(name: DeviceName, debug: Debug = False) -> None:
    """Forget a board; its history stays."""

    def run() -> int:
        from flows.measuring.targets import remove_target

        return remove_target(name)

    raise typer.Exit(guarded(run, debug))


@app.command("status")
def fleet_status(json: Json = False, debug: Debug = False) -> None:
    """Every device: whether it answers, what is watched there, what got worse."""

    def run() -> int:
        from flows.fleet.inventory import show_status

        return show_status(as_json=json)

    raise typer.Exit(guarded(run, debug))


@app.command("bench")
def fleet_bench(
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device or a class; may be repeated. Default: every known one and this machine."),
    ] = None,
    round_id: Annotated[
        str | None,
        typer.Option("--round", help="The round's name; that of an earlier one goes on with it."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure every released file on every device it fits, and compare with its history."""

    def run() -> int:
        from flows.fleet.start import bench_fleet

        return bench_fleet(tuple(device or ()), round_id, as_json=json)

    raise typer.Exit(guarded(run, debug))


@app.command("accept")
def fleet_accept(
    release: Annotated[str, typer.Argument(help="The released file.")],
    device: DeviceName,
    note: Annotated[str, typer.Option(help="Why the new level is right.")] = "",
    debug: Debug = False,
) -> None:
    """Say that a changed level is right: history begins anew there."""

    def run() -> int:
        from flows.fleet.inventory import accept_level

        return accept_level(release, device, note)

    raise typer.Exit(guarded(run, debug))


@app.command("withdraw")
def fleet_withdraw(
    name: Annotated[str, typer.Argument(help="The released file.")], debug: Debug = False
) -> None:
    """Watch a released file no more; its history stays."""

    def run() -> int:
        from flows.fleet.release import withdraw

        return withdraw(name)

    raise typer.Exit(guarded(run, debug))


def release(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    name: Annotated[
        str | None, typer.Option(help="What it is called. Default: model, data and target.")
    ] = None,
    device_class: Annotated[
        str | None, typer.Option("--class", help="The devices that it is meant for. Default: all.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Release what a run made to the fleet: the fleet benchmark watches it from now on."""

    def run() -> int:
        from flows.fleet.release import release_to_fleet

        return release_to_fleet(run_folder, name, device_class)

    raise typer.Exit(guarded(run, debug))
