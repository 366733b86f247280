"""The `edgeloop` command. Heavy imports stay inside the commands: help must come at once."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

from device_bench.errors import BadInputError, EdgeloopError

with warnings.catch_warnings():
    # typer 0.19 re-exports two names that click 8.5 deprecates; nothing here uses them.
    warnings.filterwarnings("ignore", "'click.utils", DeprecationWarning)
    import typer

app = typer.Typer(
    name="edgeloop",
    help="Compress a trained network for the devices it will really run on, and prove it there.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JSON_HELP = "Print JSON on standard output, everything else on standard error."


@app.command()
def compress(
    source: Annotated[
        Path | None,
        typer.Argument(help="A job file (.toml) or someone's ONNX file (.onnx).", show_default=False),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Zoo name, or module:callable. Default: cnn.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set name, .npz file, or module:callable. Default: digits.")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights of the model (.safetensors).")] = None,
    data_root: Annotated[
        str | None, typer.Option(help="Folder of the data sets.", envvar="EDGELOOP_DATA")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="Where it shall run; may be repeated.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of the metric it may lose.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Most milliseconds for one inference.")] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Least speed-up over the plain INT8 export.")
    ] = None,
    max_peak_memory_bytes: Annotated[int | None, typer.Option(help="Most memory while running.")] = None,
    max_artifact_bytes: Annotated[int | None, typer.Option(help="Largest file.")] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="meta, rl2, maml, fomaml, reptile, anil, recurrent, reinforce, nsga2, tpe, random, uniform, "
            "greedy, knapsack, or the file of a trained one. Default: meta."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Plans to build and measure. Default: 12.")] = None,
    recovery_epochs: Annotated[float | None, typer.Option(help="Epochs of fine-tuning. Default: 8.")] = None,
    recoveries: Annotated[
        int | None, typer.Option(help="Plans to recover for each target. Default: 2.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtimes. Default: 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Fixes everything random. Default: 0.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for runs. Default: runs.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compress a model within a budget, export it, and prove it on every target."""
    given = {
        name: value
        for name, value in locals().items()
        if name not in {"source", "resume", "json", "debug"} and value is not None
    }
    raise typer.Exit(_guarded(lambda: _compress(source, given, resume, json), debug))


@app.command()
def bench(
    artifact: Annotated[Path, typer.Argument(help="An .onnx or .tflite file.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Where to measure: a target or a device; may be repeated.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another file to compare with, by interleaved rounds.")
    ] = None,
    accelerator: Annotated[str | None, typer.Option(help="cpu, cuda, … Default: cpu.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the runtime. Default: 1.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the latency goes, operator by operator.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure any artifact, here or on a board, and compare it with another."""

    def run() -> int:
        from flows.bench import BenchOrder, bench_artifact

        order = BenchOrder(artifact, tuple(target or ()), threads, accelerator, compare, profile)
        return bench_artifact(order, as_json=json)

    raise typer.Exit(_guarded(run, debug))


@app.command()
def calibrate(
    target: Annotated[str, typer.Option(help="The target to make a latency model of.")],
    minutes: Annotated[float, typer.Option(help="How long to measure nets on it.")] = 6.0,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what was measured there before.")] = False,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Learn what layers cost on a target, so that candidates can be ranked before they are measured."""

    def run() -> int:
        from flows.calibrate import calibrate_target

        return calibrate_target(target, minutes, resume=resume, as_json=json)

    raise typer.Exit(_guarded(run, debug))


@app.command()
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
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Adapt a finished run's compressed models to a few samples of your own."""

    def start() -> int:
        from flows.personalize import PersonalizeOrder, personalize_run
        from pipeline.personalization import Method

        method = Method(learner, episodes, steps)
        order = PersonalizeOrder(run, data, shots, method, data_root, seed)
        return personalize_run(order, as_json=json)

    raise typer.Exit(_guarded(start, debug))


@app.command("meta-train")
def meta_train(
    tasks: Annotated[Path, typer.Argument(help="List of tasks to train on (.toml).")],
    policy: Annotated[
        str, typer.Option(help="What to train: rl2, recurrent, maml, fomaml, reptile or anil.")
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
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Train a policy over recorded tasks, and judge it on tasks it has never seen."""

    def run() -> int:
        from flows.meta_train_start import MetaTrainRequest
        from flows.meta_train_start import meta_train as start

        wanted = store if store is not None else "" if experience else None
        request = MetaTrainRequest(tasks, policy, out, held_out, seed, updates, data_root, wanted)
        return start(request, as_json=json)

    raise typer.Exit(_guarded(run, debug))


@app.command()
def models() -> None:
    """The models of the zoo."""

    def run() -> int:
        from flows.catalogue import show_models

        show_models()
        return 0

    raise typer.Exit(_guarded(run, False))


@app.command()
def data() -> None:
    """The data sets that are known by name."""

    def run() -> int:
        from flows.catalogue import show_data

        show_data()
        return 0

    raise typer.Exit(_guarded(run, False))


targets_app = typer.Typer(help="The devices that models run on: this machine, and boards with an agent.")
app.add_typer(targets_app, name="targets")
TargetName = Annotated[str, typer.Argument(help="What the board is called here.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@targets_app.callback(invoke_without_command=True)
def targets(context: typer.Context) -> None:
    """The targets that are known by name."""
    if context.invoked_subcommand is None:
        raise typer.Exit(_guarded(_show_targets, False))


@targets_app.command("list")
def targets_list() -> None:
    """The targets that are known by name."""
    raise typer.Exit(_guarded(_show_targets, False))


@targets_app.command("add")
def targets_add(
    name: TargetName,
    url: Annotated[str, typer.Argument(help="https://HOST:PORT of its agent.")],
    pair: Annotated[
        str, typer.Option(help="The line that `device-bench init` printed there; - reads it from stdin.")
    ],
    debug: Debug = False,
) -> None:
    """Pair with a board's agent: pins its certificate and keeps its token."""

    def run() -> int:
        from flows.targets import add_target

        return add_target(name, url, pair)

    raise typer.Exit(_guarded(run, debug))


@targets_app.command("remove")
def targets_remove(name: TargetName, debug: Debug = False) -> None:
    """Forget a board."""

    def run() -> int:
        from flows.targets import remove_target

        return remove_target(name)

    raise typer.Exit(_guarded(run, debug))


@targets_app.command("check")
def targets_check(name: TargetName, debug: Debug = False) -> None:
    """Whether a board (or "local") can be reached, and computes known models right."""

    def run() -> int:
        from flows.target_check import check_target

        return check_target(name)

    raise typer.Exit(_guarded(run, debug))


policy_app = typer.Typer(
    help="What policies are worth, and why they chose as they did.", no_args_is_help=True
)
app.add_typer(policy_app, name="policy")


@policy_app.command("explain")
def policy_explain(
    run_folder: Annotated[Path, typer.Argument(help="The folder of a finished run.", metavar="RUN")],
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Debug = False,
) -> None:
    """Why each unit of a run's plans got its ratio, and each block its fate."""

    def run() -> int:
        from flows.explain import explain_run

        return explain_run(run_folder, as_json=json)

    raise typer.Exit(_guarded(run, debug))


@policy_app.command("evaluate")
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
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Debug = False,
) -> None:
    """How fast a policy finds good plans on tasks it has never seen."""

    def run() -> int:
        from flows.policy_evaluate import COMPARED, EvaluateOrder, evaluate_policy

        order = EvaluateOrder(policy, tasks, tuple(beside or COMPARED), seeds, trials, jobs, plot)
        return evaluate_policy(order, as_json=json)

    raise typer.Exit(_guarded(run, debug))


experience_app = typer.Typer(
    help="What was tried in all runs: what policies are trained on.", no_args_is_help=True
)
app.add_typer(experience_app, name="experience")
Store = Annotated[
    str | None,
    typer.Option(help="Another store: a SQLite file or a database's URL. Default: the one that runs keep."),
]


@experience_app.command("export")
def experience_export(
    file: Annotated[Path, typer.Argument(help="The file to write (JSON Lines).")],
    store: Store = None,
    debug: Debug = False,
) -> None:
    """Write all trials of all runs to a file."""

    def run() -> int:
        from flows.experience import export_to

        return export_to(file, store)

    raise typer.Exit(_guarded(run, debug))


@experience_app.command("import")
def experience_import(
    file: Annotated[Path, typer.Argument(help="A file that `experience export` wrote.")],
    store: Store = None,
    debug: Debug = False,
) -> None:
    """Merge a file into the store; what is there already stays as it is."""

    def run() -> int:
        from flows.experience import import_from

        return import_from(file, store)

    raise typer.Exit(_guarded(run, debug))


@experience_app.command("stats")
def experience_stats(
    store: Store = None,
    json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    debug: Debug = False,
) -> None:
    """Trials, runs, failures and the best speed-up, by task, policy and target."""

    def run() -> int:
        from flows.experience import show_stats

        return show_stats(store, as_json=json)

    raise typer.Exit(_guarded(run, debug))


def _show_targets() -> int:
    from flows.catalogue import show_targets

    show_targets()
    return 0


def _compress(source: Path | None, given: dict[str, Any], resume: Path | None, as_json: bool) -> int:
    from flows.start import run_compress, resume_compress  # noqa: I001
    from flows.job import make_job, read_job

    if resume is not None:
        if source is not None:
            raise BadInputError(
                f"--resume goes on with the job as it was; it cannot take {source} as well: leave one out"
            )
        return resume_compress(resume, given, as_json=as_json)
    keys: dict[str, object] = {}
    if source is not None and source.suffix == ".toml":
        keys = read_job(source)
    elif source is not None:
        if "model" in given:
            raise BadInputError(
                f"the model is given twice, as {source} and as --model {given['model']}: leave one out"
            )
        keys = {"model": str(source)}
    return run_compress(make_job(keys | given), as_json=as_json)


def _guarded(run: Any, debug: bool) -> int:
    """Exit code of `run`: errors raised on purpose become one message, others too unless --debug is given."""
    try:
        return int(run())
    except EdgeloopError as error:
        if debug:
            raise
        _say("\n".join([f"error: {error}", *_notes(error)]))
        return error.exit_code
    except KeyboardInterrupt as error:
        _say("\n".join(["stopped", *_notes(error)]))
        return 130
    except BrokenPipeError:
        return 3
    except Exception as error:
        if debug:
            raise
        failure = "this is a failure of the run, not of its input; run it again with --debug to see where"
        _say("\n".join([f"error: {type(error).__name__}: {error}", failure, *_notes(error)]))
        return 3


def _notes(error: BaseException) -> list[str]:
    """What was added to the error on its way up: how to go on."""
    return list(getattr(error, "__notes__", []))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main() -> None:
    """Entry point of the console script."""
    # Modules named as module:callable are found from where the user stands.
    sys.path.insert(0, str(Path.cwd()))
    app()


if __name__ == "__main__":
    main()
