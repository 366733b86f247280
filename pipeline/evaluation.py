"""What a model is worth on a split: the task's own metric."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.data.base import Dataset, Metric, Preprocessing, Split
from pipeline.data.heads import by_head


def score(metric: Metric, outputs: np.ndarray, truth: np.ndarray, heads: tuple[int, ...] = ()) -> float:
    """The metric of `outputs` [n, k] against `truth` [n]. Accuracy and AUC are in percent.

    Of several heads, whose truth is [n, heads], it is the mean of their accuracies.

    AUC takes the anomaly score from the only output, or from class 1's margin over class 0; it is NaN where
    outputs are not finite, as MSE and R² are.
    """
    if metric is Metric.ACCURACY:
        right = [np.mean(given.argmax(axis=1) == true) for given, true in by_head(outputs, truth, heads)]
        return 100.0 * float(np.mean(right))
    if metric is Metric.AUC:
        from sklearn.metrics import roc_auc_score

        if not np.isfinite(outputs).all():
            return float("nan")
        ranks = outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
        return 100.0 * float(roc_auc_score(truth, ranks))
    residual = outputs.reshape(truth.shape).astype(np.float64) - truth
    mse = float(np.mean(residual**2))
    return mse if metric is Metric.MSE else 1.0 - mse / float(np.var(truth))


def predict(module: nn.Module, raw: np.ndarray, preprocessing: Preprocessing, batch: int = 500) -> np.ndarray:
    """Outputs of `module` for raw samples [n, ...], float32 [n, k]; the module is run in evaluation mode."""
    was_training = module.training
    module.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(raw), batch):
            inputs = torch.from_numpy(preprocessing.apply(raw[start : start + batch]))
            if inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            parts.append(module(inputs).float().numpy())
    module.train(was_training)
    return np.concatenate(parts)


def evaluate(
    module: nn.Module,
    split: Split,
    metric: Metric,
    preprocessing: Preprocessing,
    heads: tuple[int, ...] = (),
) -> float:
    """The metric of `module` on `split`; see `score`."""
    return score(metric, predict(module, split.x, preprocessing), split.y, heads)


def chance_of(dataset: Dataset) -> float:
    """The metric of answers that know nothing: the commonest class, AUC 50, or the mean for regression."""
    truth = dataset.search.y
    if dataset.metric is Metric.ACCURACY:
        tasks = truth.astype(np.int64).reshape(len(truth), -1).T
        return 100.0 * float(np.mean([np.bincount(task).max() for task in tasks])) / len(truth)
    if dataset.metric is Metric.AUC:
        return 50.0
    return float(np.var(truth)) if dataset.metric is Metric.MSE else 0.0
