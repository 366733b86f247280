"""A Keras file or a TensorFlow SavedModel as a torch module, through ONNX."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from device_bench.errors import MissingExtraError
from device_bench.protocol import Record
from pipeline.errors import ModelError
from pipeline.model_source import SAVED_MODEL_FILE

if TYPE_CHECKING:
    from torch import nn

NEEDED = ("tensorflow", "tf2onnx")


class Outcome(Record):
    """How a conversion went: why it was refused, if it was; whether a softmax at the end was left out."""

    refusal: str | None = None
    without_softmax: bool = False


def check_keras_extra() -> None:
    """Nothing, if what the extra `keras` brings is there.

    Raises:
        MissingExtraError: TensorFlow or tf2onnx is not installed.
    """
    for module in NEEDED:
        if find_spec(module) is None:
            raise MissingExtraError(module, "keras")


def import_keras(path: Path, input_shape: tuple[int, ...]) -> nn.Module:
    """The model in a `.keras` or `.h5` file or a SavedModel folder, in evaluation mode.

    It takes samples with their channels first, whatever order the file has, and gives logits: a softmax at
    the end is left out.

    Args:
        path: of the file or folder.
        input_shape: shape of one sample of the data, channels first.

    Raises:
        MissingExtraError: TensorFlow or tf2onnx is not installed.
        ModelError: see `keras_to_onnx` and `import_onnx`.
    """
    from pipeline.onnx_import import import_onnx

    with tempfile.TemporaryDirectory(prefix="edgeloop-keras-") as folder:
        converted = Path(folder) / "model.onnx"
        keras_to_onnx(path, input_shape, converted)
        try:
            return import_onnx(converted)
        except ModelError as error:
            raise ModelError(str(error).replace(str(converted), f"{path}, as ONNX,")) from error


def keras_to_onnx(path: Path, input_shape: tuple[int, ...], target: Path) -> None:
    """Write the model to `target` as ONNX, for samples of `input_shape`, channels first.

    Raises:
        MissingExtraError: TensorFlow or tf2onnx is not installed.
        ModelError: there is no such file; it is none of Keras; it needs code that is not in Keras (custom and
            lambda layers); it has several inputs or outputs; it does not fit the samples.
    """
    if not path.is_file() and not (path / SAVED_MODEL_FILE).is_file():
        raise ModelError(
            f"Keras model {path} does not exist; give a .keras or .h5 file, or a folder that holds a "
            f"{SAVED_MODEL_FILE}"
        )
    check_keras_extra()
    with tempfile.TemporaryDirectory(prefix="edgeloop-keras-") as folder:
        outcome = Path(folder) / "outcome.json"
        command = [sys.executable, "-P", "-m", "pipeline.keras_conversion", str(path.absolute())]
        shape = ",".join(map(str, input_shape))
        done = subprocess.run(
            [*command, str(target.absolute()), shape, str(outcome)],
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            found = Outcome.model_validate_json(outcome.read_bytes())
        except (OSError, ValidationError) as error:
            last = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise ModelError(
                f"{path} cannot be converted to ONNX: TensorFlow ended with code {done.returncode}\n{last}\n"
                "convert it yourself, and give the .onnx file"
            ) from error
    if found.refusal is not None:
        raise ModelError(found.refusal)
    if found.without_softmax:
        logging.getLogger(__name__).info("%s ends in a softmax, which is left out", path)
