"""ResNet-20 on CIFAR-10 JPEG: the main job's figures, from one run of the command line.

    python benchmarks/resnet20.py --data-root DATA            # makes the run, then prints the table
    python benchmarks/resnet20.py --run runs/<id>             # prints the table of a run that was made before
    python benchmarks/resnet20.py --run runs/<id> --plot docs/resnet20.svg

DATA holds cifar10_jpeg_{train,test}.npz and weights/resnet20_cifar10_jpeg.safetensors. Exit code 1 if a
figure is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.report.pareto_picture import pareto_svg
from pipeline.result import RunResult

# Least speed-up over the plain INT8 export of the same run, and the aim beyond it.
FLOORS = {"local-litert": 1.6, "local-onnxruntime": 1.4}
AIM = 2.5
MAX_DROP = 1.0


def command(data_root: str, out: str) -> list[str]:
    """The run's command line, as the README gives it."""
    return [
        "edgeloop", "compress", "--model", "resnet20",
        "--weights", f"{data_root}/weights/resnet20_cifar10_jpeg.safetensors",
        "--data", "cifar10-jpeg", "--data-root", data_root,
        "--target", "local-onnxruntime", "--target", "local-litert",
        "--max-drop", str(MAX_DROP), "--trials", "12", "--recovery-epochs", "24", "--out", out,
    ]  # fmt: skip


def latest(out: Path) -> Path:
    """The newest run below `out`."""
    return max(out.glob("*-resnet20-cifar10-jpeg*"), key=lambda path: path.name)


def result_of(folder: Path) -> RunResult:
    """What a finished run found."""
    return RunResult.model_validate_json((folder / "result.json").read_text(encoding="utf-8"))


def show(folder: Path, *, as_json: bool) -> bool:
    """Print a run's table; True if every figure is reached."""
    result = result_of(folder)
    table = Table(
        title=f"{folder}: {result.seconds / 60:.0f} minutes, {result.trials} trials", title_justify="left"
    )
    for heading in ("target", "artifact", "test accuracy", "p50 ms", "vs plain INT8", "asked", "reached"):
        table.add_column(heading, justify="left" if heading in {"target", "artifact"} else "right")
    reached = True
    for name, found in result.targets.items():
        speed = found.speedup_vs_plain_int8
        assert speed is not None and found.plain_int8 is not None
        drop = found.float.accuracy - found.chosen.accuracy
        good = speed.ratio >= FLOORS[name] and drop <= MAX_DROP
        reached &= good
        table.add_row(name, "float", f"{found.float.accuracy:.2f}", f"{found.float.p50_ms:.3f}")
        table.add_row(
            "", "plain INT8", f"{found.plain_int8.accuracy:.2f}", f"{found.plain_int8.p50_ms:.3f}", "1.00×"
        )
        table.add_row(
            "", "chosen", f"{found.chosen.accuracy:.2f} ({-drop:+.2f})", f"{found.chosen.p50_ms:.3f}",
            f"{speed.ratio:.2f}× ({speed.low:.2f}–{speed.high:.2f})",
            f"{FLOORS[name]:.1f}× (aim {AIM:.1f}×), −{MAX_DROP:.1f}", "yes" if good else "no",
        )  # fmt: skip
    Console(stderr=as_json, width=120).print(table)
    Console(stderr=as_json, width=120).print(
        "minutes by stage: " + ", ".join(f"{k} {v / 60:.1f}" for k, v in result.seconds_by_stage.items())
    )
    if as_json:
        print(json.dumps({name: found.model_dump(mode="json") for name, found in result.targets.items()}))
    return reached


def main() -> int:
    """Make or read a run and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-root")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--out", default="runs")
    parser.add_argument("--plot", type=Path, help="where the picture of the trials on ONNX Runtime goes")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    folder = given.run
    if folder is None:
        if given.data_root is None:
            parser.error("give --data-root to make a run, or --run to read one")
        code = subprocess.run(command(given.data_root, given.out), check=False).returncode
        if code not in (0, 1):
            return code
        folder = latest(Path(given.out))
    if given.plot is not None:
        given.plot.write_text(pareto_svg(result_of(folder), "local-onnxruntime"), encoding="utf-8")
    return 0 if show(folder, as_json=given.json) else 1


if __name__ == "__main__":
    sys.exit(main())
