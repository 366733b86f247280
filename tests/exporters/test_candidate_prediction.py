from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from make_believe_bench import MakeBelieveBench, formula_ms

from exporters.calibration import Calibrator
from exporters.candidate_prediction import CandidatePredictor
from exporters.candidates import ShapeBench
from pipeline.compressor import compress
from pipeline.latency_model.store import load_model
from pipeline.plan import CompressionPlan
from pipeline.space import PlanSpace
from pipeline.target import LOCAL_TARGETS
from pipeline.tracing import trace
from pipeline.zoo import build


def test_plans_are_predicted_and_ranked_without_being_run(tmp_path: Path) -> None:
    target = LOCAL_TARGETS["local-onnxruntime"]
    ticks = iter(range(10_000))
    worker = Calibrator(target, MakeBelieveBench(), lambda text: None, lambda: float(next(ticks)))
    worker.measure_nets(worker.open(tmp_path / f"{target.name}.jsonl", resume=False), 100)
    torch.manual_seed(0)
    module = build("cnn", (1, 8, 8), 10).eval()
    graph = trace(module, (1, 8, 8))
    samples = np.zeros((4, 1, 8, 8), np.float32)
    writer = ShapeBench(module, graph, tuple(LOCAL_TARGETS.values()), samples, tmp_path / "candidates")
    predictor = CandidatePredictor(writer, {target.name: load_model(target.name, tmp_path)})
    predicted, true = [], []
    for plan in (
        CompressionPlan(),
        PlanSpace.of(graph, 8).uniform(0.5),
        PlanSpace.of(graph, 8).uniform(0.25),
    ):
        found = predictor.predict(compress(module, graph, plan), plan)
        # The other target was never calibrated.
        assert set(found) == {target.name}
        predicted.append(found[target.name].ms)
        true.append(formula_ms(tmp_path / "candidates" / "predicted.onnx"))
    assert predicted == sorted(predicted, reverse=True)
    assert predicted == pytest.approx(true, rel=0.2)
