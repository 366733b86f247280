"""`edgeloop policy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer

app = typer.Typer(help="What policies are worth, and why they chose as they did.", no_args_is_help=True)


@app.command("explain")
def policy_explain(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Why each unit of a run's plans got its ratio, and each block its fate."""

    def run() -> int:
        from flows.training.explain import explain_run

        return explain_run(run_folder, as_json=json)

    raise typer.Exit(guarded(run, debug))


@app.command("evaluate")
def policy_evaluate(
    policy: Annotated[
        str, typer.Argument(help="A file that meta-train wrote, or a policy's name: policies/x.safetensors.")
    ],
    tasks: Annotated[Path, typer.Option(help="List of held-out tasks (.toml).")],
    beside: Annotated[
        list[str] | None, typer.Option(help="A policy to compare with; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How often every task is played.")] = 5,
    trials: Annotated[int, typer.Option(help="Plans to try each time.")] = 50,
    jobs: Annotated[int, typer.Option(help="Processes at work.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Draw the mean curves to this file (.svg).")] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """How fast a policy finds good plans on tasks it has never seen."""

    def run() -> int:
        from flows.training.policy_evaluate import COMPARED, EvaluateOrder, evaluate_policy

        order = EvaluateOrder(policy, tasks, tuple(beside or COMPARED), seeds, trials, jobs, plot)
        return evaluate_policy(order, as_json=json)

    raise typer.Exit(guarded(run, debug))
