"""What candidates would take, predicted and not measured: many can be ranked before few are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from exporters.calibration import read_operators
from exporters.candidates import ShapeBench
from pipeline.latency_model.model import LatencyModel
from pipeline.latency_model.records import Prediction
from pipeline.plan import CompressionPlan


@dataclass(frozen=True)
class CandidatePredictor:
    """Predicts where a `ShapeBench` measures.

    Args:
        writer: writes candidates by the traced export of the original; its targets are predicted for.
        models: latency models by target name, `pipeline.latency_model.store.load_model`.
    """

    writer: ShapeBench
    models: Mapping[str, LatencyModel]

    def predict(self, module: nn.Module, plan: CompressionPlan) -> dict[str, Prediction]:
        """What `module`, which `plan` made, would take on each target that has a model, by name.

        The INT8 file is written and read, and not run.

        Raises:
            ExportError: the candidate cannot be exported.
            BadInputError: its file cannot be read.
        """
        found = {}
        for target in self.writer.targets:
            model = self.models.get(target.name)
            if model is None:
                continue
            path = self.writer.folder / f"predicted.{target.artifact_format}"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.writer.write(target.artifact_format, module, plan, path)
            found[target.name] = model.predict(read_operators(path))
        return found
