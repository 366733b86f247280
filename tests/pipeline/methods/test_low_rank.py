from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import scipy.linalg
import torch
from torch import nn

from exporters.to_onnx import to_float_onnx
from pipeline.errors import PlanError
from pipeline.layer_choice import LowRank
from pipeline.methods.low_rank import factorise_, factorised, macs_ratio, rank_for, rank_of_energy

LAYERS = {
    "svd": nn.Linear(7, 5),
    "channel": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "spatial": nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
}


def inputs(kind: str) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 7) if kind == "svd" else torch.randn(2, 4, 9, 12)


def full_rank(kind: str) -> int:
    return {"svd": 5, "channel": 6, "spatial": 12}[kind]


@pytest.mark.parametrize("kind", LAYERS)
def test_full_rank_is_the_layer(kind: str) -> None:
    layer = LAYERS[kind]
    made = factorised(layer, kind, full_rank(kind))
    torch.testing.assert_close(made(inputs(kind)), layer(inputs(kind)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["svd", "channel"])
def test_the_matrix_is_scipys_best_approximation(kind: str) -> None:
    layer = LAYERS[kind]
    matrix = layer.weight.detach().flatten(1).double().numpy()
    left, values, right = scipy.linalg.svd(matrix, full_matrices=False)
    best = (left[:, :2] * values[:2]) @ right[:2]
    first, second = factorised(layer, kind, 2)
    product = second.weight.detach().flatten(1) @ first.weight.detach().flatten(1)
    np.testing.assert_allclose(product.numpy(), best, atol=1e-5)
    # Eckart and Young: what is lost are the singular values that went.
    assert np.linalg.norm(matrix - best) == pytest.approx(np.sqrt((values[2:] ** 2).sum()))


def test_a_kernel_of_rank_one_is_split_exactly() -> None:
    layer = nn.Conv2d(1, 1, 3, bias=False)
    column, row = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0])
    layer.weight.data = torch.outer(column, row)[None, None]
    first, second = factorised(layer, "spatial", 1)
    assert first.weight.shape == (1, 1, 3, 1) and second.weight.shape == (1, 1, 1, 3)
    torch.testing.assert_close(first.weight.flatten() / first.weight.flatten()[0], column)
    torch.testing.assert_close(second.weight.flatten() / second.weight.flatten()[0], row / 4)
    x = torch.randn(1, 1, 6, 6)
    torch.testing.assert_close(second(first(x)), layer(x), atol=1e-4, rtol=1e-5)


def test_energy_is_a_share_of_the_squared_singular_values() -> None:
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])  # squares 16, 4, 1, 1 of 22
    assert [rank_of_energy(values, e) for e in (0.5, 16 / 22, 0.73, 20 / 22, 0.95, 1.0)] == [1, 1, 2, 2, 3, 4]
    assert rank_of_energy(torch.zeros(3), 1.0) == 1


def test_ratio_and_rank() -> None:
    layer = LAYERS["channel"]
    assert rank_for(layer, "c", LowRank(kind="channel", ratio=0.5)) == 3
    assert rank_for(layer, "c", LowRank(kind="channel", ratio=0.01)) == 1
    assert rank_for(layer, "c", LowRank(kind="channel", rank=6)) == 6


def test_a_rank_above_the_matrixs_says_what_is_allowed() -> None:
    with pytest.raises(PlanError, match=r"layer 'c': rank 7 is above that of its 6 x 36 matrix; give 1 to 6"):
        rank_for(LAYERS["channel"], "c", LowRank(kind="channel", rank=7))


def test_groups_and_other_layers_have_no_low_rank() -> None:
    for layer, kind in ((nn.Conv2d(4, 4, 3, groups=4), "channel"), (nn.Linear(3, 3), "spatial")):
        with pytest.raises(PlanError, match="has no low rank of kind"):
            rank_for(layer, "c", LowRank(kind=kind, rank=1))  # type: ignore[arg-type]


def test_multiplications_are_those_of_the_weights() -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1)
    for kind, rank in (("channel", 4), ("spatial", 6)):
        made = factorised(layer, kind, rank)
        weights = sum(part.weight.numel() for part in made)
        assert macs_ratio(layer, kind, rank) == pytest.approx(weights / layer.weight.numel())


@pytest.mark.parametrize("kind", ["channel", "spatial"])
def test_a_factorised_model_exports(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4)).eval()
    factorise_(net, "0", LowRank(kind=kind, rank=3))  # type: ignore[arg-type]
    factorise_(net, "3", LowRank(kind="svd", rank=2))
    x = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype(np.float32)
    model = to_float_onnx(net, x)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": x})
    np.testing.assert_allclose(found, net(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
