"""Each form against its definition: worked out by hand, or by a library of others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from quantizer_suite import weights
from scipy import stats
from sklearn.cluster import KMeans

from pipeline.layer_choice import WeightForm
from pipeline.methods.quantizers.binary import Binary, Ternary
from pipeline.methods.quantizers.codebook import Codebook
from pipeline.methods.quantizers.companding import DEGREES, Companding, companded, fitted
from pipeline.methods.quantizers.interval import Interval
from pipeline.methods.quantizers.piecewise import Piecewise
from pipeline.methods.quantizers.power_of_two import PowerOfTwo, nearest_power
from pipeline.methods.quantizers.uniform import NetworkWide, Uniform, affine_parameters


@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_per_channel_is_torchs(bits: int) -> None:
    given = weights(6, 4, 3, 3)
    top = 2 ** (bits - 1) - 1
    scale = given.abs().flatten(1).amax(1) / top
    wanted = torch.fake_quantize_per_channel_affine(
        given, scale, torch.zeros(6, dtype=torch.int32), 0, -top, top
    )
    torch.testing.assert_close(Uniform(bits).quantize(given), wanted)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_asymmetric_per_tensor_is_torchs(bits: int) -> None:
    given = weights(6, 40) + 0.03
    scale = float(given.max() - given.min()) / (2**bits - 1)
    zero = round(-float(given.min()) / scale)
    wanted = torch.fake_quantize_per_tensor_affine(given, scale, zero, 0, 2**bits - 1)
    torch.testing.assert_close(Uniform(bits, per_channel=False, symmetric=False).quantize(given), wanted)


def test_zero_is_always_among_the_values() -> None:
    scale, zero = affine_parameters(torch.tensor(2.0), torch.tensor(6.0), 8, symmetric=False)
    assert float(scale) == pytest.approx(6 / 255) and float(zero) == 0.0


def test_two_bits_by_hand() -> None:
    found = Uniform(2, per_channel=False).quantize(torch.tensor([-1.0, -0.4, 0.0, 0.6, 0.9]))
    assert found.tolist() == [-1.0, 0.0, 0.0, 1.0, 1.0]


def test_the_network_has_one_step() -> None:
    layers = {"a": torch.tensor([0.3, -1.0]), "b": torch.tensor([7.0, 2.2])}
    shared = NetworkWide(4).over(layers)
    assert shared.largest == 7.0
    assert shared.quantize(layers["a"]).tolist() == [0.0, -1.0]
    assert shared.quantize(layers["b"]).tolist() == [7.0, 2.0]


def test_an_interval_keeps_its_mean() -> None:
    given = weights(1, 4000)
    found = Interval(8).quantize(given)
    edges = torch.linspace(float(given.min()), float(given.max()), 5)
    for low, high in itertools.pairwise(edges):
        inside = (given >= low) & (given < high)
        step = float(high - low) / 63
        assert abs(float(found[inside].mean() - given[inside].mean())) < step / 2


def test_the_breakpoint_is_the_best_of_the_grid() -> None:
    given = weights(4, 500)
    form = Piecewise(4)
    largest = float(given.abs().max())
    errors = [
        float((form.with_breakpoint(given, largest * share) - given).square().sum())
        for share in np.linspace(0.05, 0.95, 37)
    ]
    found = float((form.quantize(given) - given).square().sum())
    assert found <= 1.02 * min(errors)
    assert found < float((Uniform(4, per_channel=False).quantize(given) - given).square().sum())


def test_the_nearest_power_by_search() -> None:
    given = torch.linspace(-5.0, 5.0, 2001)
    powers = np.array([0.0, *(s * 2.0**k for k in range(-2, 2) for s in (1, -1))])
    wanted = powers[np.abs(given.numpy()[:, None] - powers).argmin(1)]
    found = nearest_power(given, -2, 1).numpy()
    np.testing.assert_allclose(np.abs(found - given.numpy()), np.abs(wanted - given.numpy()), atol=1e-6)


def test_a_sum_of_powers_by_hand() -> None:
    form = PowerOfTwo(bits=4, terms=2, carry=False)
    assert form.quantize(torch.tensor([[4.0, 3.0, 1.3, -5.0]])).tolist() == [[4.0, 3.0, 1.25, -5.0]]


def test_the_error_is_carried_to_the_next_weight() -> None:
    given = torch.tensor([[1.0, 0.34, 0.34, 0.34]])
    # One term: 0.34 becomes 0.25 and leaves 0.09; 0.43 becomes 0.5 and leaves −0.07; 0.27 becomes 0.25.
    found = PowerOfTwo(bits=4, terms=1).quantize(given)
    assert found.tolist() == [[1.0, 0.25, 0.5, 0.25]]
    assert PowerOfTwo(bits=4, terms=1, carry=False).quantize(given).tolist() == [[1.0, 0.25, 0.25, 0.25]]
    many = weights(4, 900)
    carried, plain = (PowerOfTwo(3, 1, carry).quantize(many).sum(1) - many.sum(1) for carry in (True, False))
    assert float(carried.abs().max()) < 0.05 * float(plain.abs().max())


@pytest.mark.parametrize(("bits", "wanted"), [(4, (4, 1)), (6, (6, 1)), (8, (4, 2)), (16, (8, 2))])
def test_few_bits_of_a_plan_are_one_power(bits: int, wanted: tuple[int, int]) -> None:
    form = PowerOfTwo.of(WeightForm(method="power_of_two", bits=bits))
    assert (form.bits, form.terms) == wanted
    given = weights(4, 500)
    assert float((form.quantize(given) - given).norm()) < 0.3 * float(given.norm())


def test_the_codebook_is_kmeans() -> None:
    given = weights(1, 600)
    centroids, index = Codebook(3).clusters(given)
    start = np.linspace(float(given.min()), float(given.max()), 8)[:, None]
    library = KMeans(8, init=start, n_init=1, max_iter=100, tol=0.0).fit(
        given.double().numpy().reshape(-1, 1)
    )
    used = np.unique(index.numpy())
    np.testing.assert_allclose(
        np.sort(library.cluster_centers_.ravel())[used], centroids.numpy()[used], atol=2e-3
    )
    lost = float((given.double().flatten() - centroids[index]).square().sum())
    assert lost <= 1.05 * library.inertia_


def test_huffman_needs_no_more_than_packed_indices() -> None:
    given = weights(16, 16, 3, 3)
    form = Codebook(5)
    _, index = form.clusters(given)
    shares = np.bincount(index.numpy()) / index.numel()
    wanted = stats.entropy(shares[shares > 0], base=2) * given.numel() / 8 + 4 * 32
    assert form.entropy_bytes(given) == pytest.approx(wanted, abs=1)
    assert form.entropy_bytes(given) < form.stored_bytes(given) == 16 * 16 * 9 * 5 // 8 + 128


def test_companding_rises_and_is_denser_at_zero() -> None:
    share = (weights(1, 5000).abs() / weights(1, 5000).abs().max()).flatten().numpy()
    coefficients = fitted(share)
    assert coefficients.sum() == pytest.approx(1.0) and (coefficients >= 0).all()
    curve = companded(np.linspace(0, 1, 101), coefficients)
    assert curve[0] == 0.0 and curve[-1] == pytest.approx(1.0)
    assert (np.diff(curve) > 0).all()
    assert curve[10] > 0.2
    assert companded(np.array([0.3]), np.eye(len(DEGREES))[0])[0] == pytest.approx(0.3)


def test_companding_beats_even_steps_on_dense_weights() -> None:
    given = weights(4, 2000)
    lost = {
        form: float((form.quantize(given) - given).square().mean())
        for form in (Companding(4), Uniform(4, per_channel=False))
    }
    assert lost[Companding(4)] < 0.7 * lost[Uniform(4, per_channel=False)]


def test_binary_by_hand() -> None:
    found = Binary().quantize(torch.tensor([[1.0, -2.0, 0.0], [-3.0, 3.0, 6.0]]))
    assert found.tolist() == [[1.0, -1.0, 1.0], [-4.0, 4.0, 4.0]]


def test_ternary_by_hand() -> None:
    # mean|w| is 1.5, so 1.05 is the threshold; 2 and 3 are left, with mean 2.5.
    found = Ternary().quantize(torch.tensor([[1.0, -2.0, 0.0, 3.0]]))
    assert found.tolist() == [[0.0, -2.5, 0.0, 2.5]]
