"""`edgeloop personalize` and `meta-train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from flows.cli.guard import Debug, Json, guarded, typer


def personalize(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run: runs/<id>.")],
    data: Annotated[Path, typer.Option(help="Your samples: an .npz with x (raw) and y (class numbers).")],
    shots: Annotated[int, typer.Option(help="Samples of each class to adapt to; the others judge.")] = 5,
    learner: Annotated[
        str, typer.Option(help="How to prepare and adapt: maml, fomaml, reptile or anil.")
    ] = "reptile",
    episodes: Annotated[
        int, typer.Option(help="Made-up users of the run's data to prepare on; 0 adapts at once.")
    ] = 80,
    steps: Annotated[int, typer.Option(help="Inner steps on your samples.")] = 50,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets, if it moved.", envvar="EDGELOOP_DATA")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which samples are shots, and the made-up users.")] = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Adapt a finished run's compressed models to a few samples of your own."""

    def start() -> int:
        from flows.training.personalize import PersonalizeOrder, personalize_run
        from pipeline.personalization import Method

        method = Method(learner, episodes, steps)
        order = PersonalizeOrder(run, data, shots, method, data_root, seed)
        return personalize_run(order, as_json=json)

    raise typer.Exit(guarded(start, debug))


def meta_train(
    tasks: Annotated[Path, typer.Argument(help="List of tasks to train on (.toml).")],
    policy: Annotated[
        str, typer.Option(help="What to train: gp, rl2, recurrent, maml, fomaml, reptile or anil.")
    ],
    out: Annotated[Path, typer.Option(help="The policy file to write, or its folder.")] = Path("policies"),
    held_out: Annotated[
        Path | None, typer.Option(help="List of tasks to judge by. Default: heldout.toml beside TASKS.")
    ] = None,
    updates: Annotated[int | None, typer.Option(help="Updates to train. Default: the learner's own.")] = None,
    experience: Annotated[
        bool, typer.Option("--experience", help="Train on the trials of all your runs, too.")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="Another experience store to train on: a SQLite file or a URL.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the data sets.", envvar="EDGELOOP_DATA")
    ] = None,
    retime: Annotated[
        bool,
        typer.Option(
            "--retime", help="Take the latencies of the lists' tables anew, on this machine and boards."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a policy over recorded tasks, and judge it on tasks it has never seen."""

    def run() -> int:
        from flows.training.meta_train_start import MetaTrainRequest
        from flows.training.meta_train_start import meta_train as start

        wanted = store if store is not None else "" if experience else None
        request = MetaTrainRequest(
            tasks, policy, out, held_out, seed, updates, data_root, wanted, retime=retime
        )
        return start(request, as_json=json)

    raise typer.Exit(guarded(run, debug))
