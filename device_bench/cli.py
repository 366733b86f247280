"""`device-bench`: measure a file on this machine. Exit codes: 0 done, 2 bad use, 3 failed.

Only typer is imported here; everything else waits until a command needs it, so that help is instant.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from device_bench.agent.cli import add_commands
from device_bench.emulated.cli import add_commands as add_emulation
from device_bench.errors import BadInputError, EdgeloopError, unknown_name

if TYPE_CHECKING:
    from pydantic import ValidationError

    from device_bench.protocol import RuntimeName

with warnings.catch_warnings():
    # typer 0.19 re-exports two names that click 8.5 deprecates; nothing here uses them.
    warnings.filterwarnings("ignore", "'click.utils", DeprecationWarning)
    import typer

app = typer.Typer(
    help="Measure a model on the machine it runs on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# As many as Linux knows at most.
_MOST_CORES = 8192

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def main() -> None:
    """Entry point of the console script."""
    app()


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="An .onnx, .tflite or .pt2 file.")],
    runtime: Annotated[
        str | None, typer.Option(help="onnxruntime, litert or torch. Default: what the file's name tells.")
    ] = None,
    accelerator: Annotated[
        str,
        typer.Option(help="One that `device-bench info` lists for the runtime, such as cuda or cpu-plain."),
    ] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads that the runtime may use.")] = 1,
    cores: Annotated[str, typer.Option(help="Cores to run on, such as 2 or 0,2-3. Default: any.")] = "",
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the latency goes, operator by operator.")
    ] = False,
    slowest_first: Annotated[
        bool, typer.Option("--sort", help="With --profile: the slowest operator first.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Measure latency and memory of FILE in a fresh process."""
    with _errors_on_screen(debug):
        name = _runtime_of(file, runtime)
        import pydantic

        from device_bench import local
        from device_bench.protocol import BenchRequest, Failure, Profile

        if slowest_first and not profile:
            raise BadInputError("--sort orders the operators of a profile: give --profile too")

        chosen = parse_cores(cores)
        try:
            request = BenchRequest(
                path=str(file), runtime=name, accelerator=accelerator, threads=threads, cores=chosen
            )
        except pydantic.ValidationError as error:
            raise BadInputError(_first_complaint(error)) from error
        outcome = local.profile(request) if profile else local.measure(request)
        if as_json:
            typer.echo(outcome.model_dump_json(indent=2))
        if isinstance(outcome, Failure):
            typer.echo(f"{outcome.kind.value}: {outcome.message}", err=True)
            raise typer.Exit(3)
        if as_json:
            return
        if isinstance(outcome, Profile):
            from device_bench.profile_table import show_profile

            show_profile(file.name, outcome, slowest_first=slowest_first)
        else:
            from device_bench.screen import show_measurement

            show_measurement(file.name, outcome)


@app.command()
def info(as_json: AsJson = False, debug: Debug = False) -> None:
    """Say what this machine is, which runtimes and accelerators it has, and what would make it steadier."""
    with _errors_on_screen(debug):
        from device_bench.host import host_info

        found = host_info()
        if as_json:
            typer.echo(found.model_dump_json(indent=2))
        else:
            from device_bench.screen import show_host

            show_host(found)


def parse_cores(text: str) -> tuple[int, ...]:
    """The numbers in a list such as "0,2-3"; "" is none.

    Raises:
        BadInputError: it is no such list.
    """
    found: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadInputError(f"cores must be numbers and ranges such as 0,2-3; got {text!r}")
        cores = range(int(first), int(last or first) + 1)
        if len(cores) == 0 or cores[-1] >= _MOST_CORES:
            raise BadInputError(
                f"a range of cores must rise and stay below {_MOST_CORES}; got {part!r} in {text!r}"
            )
        found += cores
    return tuple(sorted(set(found)))


def _first_complaint(error: ValidationError) -> str:
    complaint = error.errors()[0]
    return f"{complaint['loc'][-1]}: {complaint['msg']}; got {complaint['input']!r}"


def _runtime_of(file: Path, given: str | None) -> RuntimeName:
    from device_bench.protocol import RuntimeName
    from device_bench.runtimes import SUFFIXES

    if given is not None:
        if given not in list(RuntimeName):
            raise unknown_name("runtime", given, [name.value for name in RuntimeName])
        return RuntimeName(given)
    if file.suffix.lower() not in SUFFIXES:
        raise BadInputError(
            f"cannot tell the runtime from the name {file.name!r}; known endings: {', '.join(SUFFIXES)}; "
            "or say it with --runtime"
        )
    return SUFFIXES[file.suffix.lower()]


@contextmanager
def _errors_on_screen(debug: bool) -> Iterator[None]:
    """Turn an error into one line on standard error and the exit code that goes with it."""
    try:
        yield
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        expected = isinstance(error, EdgeloopError)
        text = str(error) if expected else f"{type(error).__name__}: {error} (--debug shows where)"
        typer.echo(f"error: {text}", err=True)
        raise typer.Exit(error.exit_code if isinstance(error, EdgeloopError) else 3) from error


add_commands(app, _errors_on_screen)
add_emulation(app, _errors_on_screen)

if __name__ == "__main__":
    main()
