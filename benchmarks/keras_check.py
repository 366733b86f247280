"""Plain INT8 TFLite of Keras nets: edgeloop's file against that of TensorFlow's own converter.

    python benchmarks/keras_check.py [--json]

Two small nets are trained in Keras on the digits (train split, fixed seed). Each becomes INT8 twice, with the
same calibration samples: by edgeloop, through ONNX and torch, and by tf.lite.TFLiteConverter. Accuracy on the
test split, whose 359 samples count 0.28 points each. Needs the extras pipeline and keras.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

NETS = ("plain", "separable")
LIMIT_POINTS = 0.3


@dataclass(frozen=True)
class Row:
    """Accuracy of one net on the test split, in percent; `agreement`: both INT8 files say the same."""

    net: str
    float_keras: float
    int8_tensorflow: float
    int8_edgeloop: float
    int8_edgeloop_in_tensorflow: float
    agreement: float

    @property
    def apart(self) -> float:
        """Points between the two INT8 files, each in its own interpreter."""
        return abs(self.int8_edgeloop - self.int8_tensorflow)


def classes_by(interpreter: Any, samples: np.ndarray) -> np.ndarray:
    """The class of each sample [n, 8, 8, 1] by an INT8 file, in LiteRT's interpreter or in TensorFlow's."""
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = taken["quantization"]
    found = []
    for sample in samples:
        steps = np.clip(np.round(sample[None] / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(taken["index"], steps)
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0].argmax())
    return np.array(found)


def compare(folder: Path) -> list[Row]:
    """Train, convert by both ways, and judge; everything made lies in `folder` afterwards."""
    from ai_edge_litert.interpreter import Interpreter

    from pipeline.data import load_dataset

    data = load_dataset("digits")
    test = data.test.open()
    calibration = data.calibration()
    pictures = {"x": data.preprocessing.apply(data.train.x), "test": data.preprocessing.apply(test.x)}
    pictures["calibration"] = calibration
    last = {name: x.transpose(0, 2, 3, 1) for name, x in pictures.items()}
    np.savez(folder / "samples.npz", y=data.train.y, **last)
    _tensorflow(folder)
    for net in NETS:
        _int8_by_edgeloop(folder / f"{net}.keras", folder / f"{net}.ours.tflite", calibration)
    _tensorflow(folder)
    said = np.load(folder / "predictions.npz")
    rows = []
    for net in NETS:
        ours = Interpreter(model_content=(folder / f"{net}.ours.tflite").read_bytes())
        mine, theirs = classes_by(ours, last["test"]), said[f"{net}.tflite"]
        classes = (said[f"{net} float"], theirs, mine, said[f"{net}.ours.tflite"])
        shares = [100 * float((one == test.y).mean()) for one in classes]
        rows.append(Row(net, *shares, agreement=100 * float((mine == theirs).mean())))
    return rows


def _tensorflow(folder: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("keras_reference.py")), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"TensorFlow ended with code {done.returncode}:\n{done.stderr}")


def _int8_by_edgeloop(source: Path, target: Path, calibration: np.ndarray) -> None:
    from exporters.base import ArtifactMetadata
    from exporters.to_tflite import TfliteExporter
    from pipeline.model import load_model
    from pipeline.task import ModelSpec

    module = load_model(ModelSpec(source=str(source), input_shape=calibration.shape[1:], outputs=10))
    metadata = ArtifactMetadata(plan_id="plain")
    TfliteExporter().export(module, target, "int8", calibration, metadata)


def main() -> int:
    """Compare and print; exit code 1 if two files of a net are further apart than the limit."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object with `rows`")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(Path(folder))
    if as_json:
        print(json.dumps({"rows": [{**asdict(row), "apart": row.apart} for row in rows]}))
    else:
        table = Table(title="accuracy on the digits' test split, percent")
        for name in (
            "net",
            "float, Keras",
            "INT8, TensorFlow",
            "INT8, edgeloop",
            "the same in tf.lite",
            "agree",
        ):
            table.add_column(name, justify="left" if name == "net" else "right")
        for row in rows:
            figures = list(asdict(row).values())[1:]
            table.add_row(row.net, *(f"{figure:.2f}" for figure in figures))
        Console().print(table)
    return int(any(row.apart > LIMIT_POINTS for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
