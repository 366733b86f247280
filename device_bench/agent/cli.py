"""`device-bench init`, `serve` and `token`: what the owner of a board types.

Only typer is imported here; everything else waits until a command needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from device_bench.errors import BadInputError

if TYPE_CHECKING:
    from device_bench.agent.settings import StateFolder

with warnings.catch_warnings():
    # typer 0.19 re-exports two names that click 8.5 deprecates; nothing here uses them.
    warnings.filterwarnings("ignore", "'click.utils", DeprecationWarning)
    import typer

DEFAULT_PORT = 8443
_DAY_SECONDS = 86400.0

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Folder of the key, tokens, files and jobs. Default: $XDG_STATE_HOME/device-bench, "
        "or ~/.local/state/device-bench.",
    ),
]
Certificate = Annotated[Path | None, typer.Option("--cert", help="Your own certificate (PEM).")]
Key = Annotated[Path | None, typer.Option("--key", help="Its private key (PEM, without a password).")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
OnScreen = Callable[[bool], AbstractContextManager[None]]


def add_commands(app: typer.Typer, errors_on_screen: OnScreen) -> None:
    """Add `init`, `serve` and `token` to `device-bench`.

    Args:
        app: the command line to add to.
        errors_on_screen: given `--debug`, turns errors into a line on the screen and an exit code.
    """
    _add_init(app, errors_on_screen)
    _add_serve(app, errors_on_screen)
    tokens = typer.Typer(help="Tokens by which laptops may use this board.", no_args_is_help=True)
    _add_token_add(tokens, errors_on_screen)
    _add_token_list(tokens, errors_on_screen)
    app.add_typer(tokens, name="token")


def _add_init(app: typer.Typer, errors_on_screen: OnScreen) -> None:
    @app.command()
    def init(
        names: Annotated[
            list[str] | None,
            typer.Option("--name", help="A host name or address of this board. Default: all that it has."),
        ] = None,
        days: Annotated[int, typer.Option(help="How long the certificate is valid.")] = 825,
        certificate: Certificate = None,
        key: Key = None,
        state: State = None,
        force: Annotated[
            bool, typer.Option("--force", help="Replace the key and revoke every token.")
        ] = False,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Make this board's key pair, certificate and first token; print the line that pairs a laptop."""
        with errors_on_screen(debug):
            import time
            from datetime import UTC, datetime

            from device_bench.agent.certificate import check_pair, make_certificate, own_names
            from device_bench.agent.tokens import Tokens
            from device_bench.storage import write_private
            from device_bench.wire import Scope

            folder = _folder(state)
            if (certificate is None) != (key is None):
                raise BadInputError("give --cert and --key together, or neither")
            if not force and (folder.certificate.exists() or folder.tokens.exists()):
                raise BadInputError(
                    f"{folder.path} holds a key or tokens already; --force replaces them, after which every "
                    "laptop must be paired anew; `device-bench token add` pairs one more laptop"
                )
            folder.make()
            if certificate is not None and key is not None:
                check_pair(certificate, key)
                write_private(folder.key, key.read_bytes())
                write_private(folder.certificate, certificate.read_bytes())
            else:
                found = tuple(names) if names else own_names()
                make_certificate(folder.certificate, folder.key, found, datetime.now(UTC), days)
            token = Tokens(folder.tokens, time.time).replace_all("first", Scope.MEASURE)
            _print_pairing(folder, token, "init", as_json, names[0] if names else None)


def _add_serve(app: typer.Typer, errors_on_screen: OnScreen) -> None:
    @app.command()
    def serve(
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
        port: Annotated[
            int, typer.Option(min=0, max=65535, help="0 takes a free one and says which.")
        ] = DEFAULT_PORT,
        certificate: Certificate = None,
        key: Key = None,
        state: State = None,
        queue: Annotated[int, typer.Option(min=1, help="How many jobs may wait in line.")] = 32,
        artifact_limit: Annotated[int, typer.Option(min=1, help="Largest file, in MiB.")] = 512,
        cache_limit: Annotated[int, typer.Option(min=1, help="All files together, in MiB.")] = 4096,
        lease: Annotated[
            float, typer.Option(min=1, help="Seconds after which a job that nobody asks for is given up.")
        ] = 30.0,
        job_limit: Annotated[float, typer.Option(min=1, help="Seconds that one job may run.")] = 900.0,
        memory_limit: Annotated[
            int | None, typer.Option(min=1, help="Address space of a measuring process, in MiB.")
        ] = None,
        verbose: Annotated[
            bool, typer.Option("--verbose", help="Log every question, not only changes.")
        ] = False,
        debug: Debug = False,
    ) -> None:
        """Measure for laptops that were paired, over HTTPS, until SIGTERM or Ctrl-C."""
        with errors_on_screen(debug):
            from device_bench.agent.serve import Place, log_to_stderr
            from device_bench.agent.serve import serve as serve_agent
            from device_bench.agent.settings import AgentLimits

            folder = _folder(state)
            if (certificate is None) != (key is None):
                raise BadInputError("give --cert and --key together, or neither")
            log_to_stderr(verbose)
            place = Place(host, port, certificate or folder.certificate, key or folder.key)
            limits = AgentLimits(
                queue=queue,
                artifact_bytes=artifact_limit << 20,
                cache_bytes=cache_limit << 20,
                lease_seconds=lease,
                job_seconds=job_limit,
                wall_seconds=min(job_limit, AgentLimits().wall_seconds),
                memory_bytes=None if memory_limit is None else memory_limit << 20,
            )
            serve_agent(folder, place, limits)


def _add_token_add(app: typer.Typer, errors_on_screen: OnScreen) -> None:
    @app.command("add")
    def add(
        name: Annotated[str, typer.Argument(help="Whose token it is, for example laptop-anna.")],
        scope: Annotated[str, typer.Option(help="measure, or read for the board's state only.")] = "measure",
        days: Annotated[float | None, typer.Option(help="Valid that long. Default: until revoked.")] = None,
        state: State = None,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        """Make a token and print the line that pairs a laptop with it. A running agent knows it at once."""
        with errors_on_screen(debug):
            import time

            from device_bench.agent.certificate import fingerprint
            from device_bench.agent.tokens import Tokens
            from device_bench.errors import unknown_name
            from device_bench.wire import Scope

            folder = _folder(state)
            if scope not in list(Scope):
                raise unknown_name("scope", scope, [known.value for known in Scope])
            fingerprint(folder.certificate)  # a token is of no use before `init`
            seconds = None if days is None else days * _DAY_SECONDS
            token = Tokens(folder.tokens, time.time).add(name, Scope(scope), seconds)
            _print_pairing(folder, token, "add", as_json)


def _add_token_list(app: typer.Typer, errors_on_screen: OnScreen) -> None:
    @app.command("list")
    def list_tokens(state: State = None, as_json: AsJson = False, debug: Debug = False) -> None:
        """List the tokens' names, scopes and validity; the tokens themselves are not stored."""
        with errors_on_screen(debug):
            import time
            from datetime import UTC, datetime

            from device_bench.agent.tokens import TokenFile, Tokens

            tokens = Tokens(_folder(state).tokens, time.time).list()
            if as_json:
                typer.echo(TokenFile(tokens=tokens).model_dump_json(indent=2))
                return
            if not tokens:
                typer.echo("no tokens; `device-bench init` makes the first", err=True)
            for token in tokens:
                until = "until revoked"
                if token.expires_at is not None:
                    day = datetime.fromtimestamp(token.expires_at, UTC).isoformat(timespec="minutes")
                    until = f"{'expired' if time.time() >= token.expires_at else 'until'} {day}"
                typer.echo(f"{token.name}  {token.scope.value}  {until}")

    @app.command("revoke")
    def revoke(
        name: Annotated[str, typer.Argument(help="A name that `token list` shows.")],
        state: State = None,
        debug: Debug = False,
    ) -> None:
        """Revoke a token. A running agent refuses it at once."""
        with errors_on_screen(debug):
            import time

            from device_bench.agent.tokens import Tokens

            Tokens(_folder(state).tokens, time.time).revoke(name)
            typer.echo(f"revoked {name}")


def _folder(state: Path | None) -> StateFolder:
    from device_bench.agent.settings import StateFolder, default_state

    return StateFolder((state or default_state()).absolute())


def _print_pairing(
    folder: StateFolder, token: str, made_by: str, as_json: bool, name: str | None = None
) -> None:
    """Print the pairing line; `name` is what the laptop shall call the board by."""
    import json
    import socket

    from device_bench.agent.certificate import fingerprint
    from device_bench.wire import Pairing

    pairing = Pairing(fingerprint=fingerprint(folder.certificate), token=token)
    host = name or socket.gethostname()
    if as_json:
        typer.echo(json.dumps({"pairing": pairing.line(), "fingerprint": pairing.fingerprint, "host": host}))
        return
    if made_by == "init":
        typer.echo(f"Key, certificate and tokens are in {folder.path}")
    typer.echo(f"Certificate's SHA-256: {pairing.fingerprint}")
    typer.echo("The pairing line; it is a secret, and shown only now:\n")
    typer.echo(pairing.line())
    typer.echo(
        f"\nOn the laptop:\n  edgeloop targets add {host} https://{host}:{DEFAULT_PORT} "
        f"--pair '{pairing.line()}'\n  edgeloop targets check {host}"
    )
    if made_by == "init":
        typer.echo("Here:\n  device-bench serve")
