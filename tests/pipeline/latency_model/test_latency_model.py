from __future__ import annotations

import numpy as np
import pytest
from known_costs import addition, conv, cost_ms, random_net

from device_bench.errors import BadInputError
from pipeline.latency_model.accuracy import errors_of
from pipeline.latency_model.model import LatencyModel, cross_validated, spread_of
from pipeline.latency_model.operators import Operator, invocation

NETS = [random_net(number, noise=0.01) for number in range(160)]


@pytest.fixture(scope="module")
def model() -> LatencyModel:
    return LatencyModel.fit(NETS, (0.9, 1.2))


def test_it_recovers_a_known_cost(model: LatencyModel) -> None:
    unseen = [random_net(number) for number in range(1000, 1060)]
    found = errors_of([model.predict(net.operators).ms for net in unseen], [net.ms for net in unseen])
    assert found.median < 0.02
    assert found.within_10 > 0.97
    assert found.spearman is not None and found.spearman > 0.99


def test_cross_validation_finds_the_same() -> None:
    found = errors_of([float(ms) for ms in cross_validated(NETS)], [net.ms for net in NETS])
    assert found.median < 0.02


def test_parts_add_up_and_the_interval_holds_them(model: LatencyModel) -> None:
    found = model.predict(NETS[0].operators)
    assert sum(found.by_operator) == pytest.approx(found.ms)
    assert (found.low, found.high) == pytest.approx((0.9 * found.ms, 1.2 * found.ms))
    assert len(found.by_operator) == len(NETS[0].operators)
    assert found.outside == ()


def test_the_same_nets_give_the_same_model(model: LatencyModel) -> None:
    again = LatencyModel.fit(NETS)
    assert again.predict(NETS[3].operators).ms == model.predict(NETS[3].operators).ms


def test_costs_are_never_negative_so_whole_blocks_more_never_cost_less(model: LatencyModel) -> None:
    # Without the trees' correction: only for the linear part is that so by construction.
    plain = LatencyModel(model.costs, (), model.spread, model.sizes)
    widths = [plain.predict([conv(8, 64, width)]).ms for width in (64, 128, 192, 256, 320)]
    assert min(model.costs.values()) > 0
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]


def test_an_operator_never_measured_is_named_and_counts_nothing(model: LatencyModel) -> None:
    known = model.predict(NETS[0].operators)
    strange = Operator(kind="erf", inputs=10, outputs=10)
    found = model.predict([*NETS[0].operators, strange])
    assert found.ms == pytest.approx(known.ms)
    assert found.outside == ("erf: never measured, counted as nothing",)


def test_sizes_beyond_what_was_measured_are_named(model: LatencyModel) -> None:
    (note, *_) = model.predict([invocation(3072, 10), conv(200, 64, 64)]).outside
    assert note.startswith("conv window in4 out16: multiplications 1.47456e+09 where at most ")


def test_too_few_nets_are_refused() -> None:
    with pytest.raises(BadInputError, match="at least 20 measured nets; got 19"):
        LatencyModel.fit(NETS[:19])


def test_an_outlier_spoils_little() -> None:
    spoiled = [
        net.model_copy(update={"ms": net.ms * 3}) if at % 20 == 0 else net for at, net in enumerate(NETS)
    ]
    operators = [invocation(768, 10), conv(16, 32, 48), addition(16, 48)]
    assert LatencyModel.fit(spoiled).predict(operators).ms == pytest.approx(cost_ms(operators), rel=0.15)


def test_spread_holds_nine_of_ten() -> None:
    measured = np.linspace(0.5, 1.5, 101)
    assert spread_of([1.0] * 101, [float(ms) for ms in measured]) == pytest.approx((0.55, 1.45))


def test_errors_by_hand() -> None:
    found = errors_of([1.04, 1.09, 0.84, 2.0], [1.0, 1.0, 1.0, 1.0])
    assert (found.within_5, found.within_10, found.within_20) == (0.25, 0.5, 0.75)
    assert found.median == pytest.approx((0.09 + 0.16) / 2)
    assert found.spearman is None
    assert errors_of([1, 2, 4], [1, 3, 5]).spearman == pytest.approx(1)
    with pytest.raises(ValueError, match="got 1, 2"):
        errors_of([1.0], [1.0, 2.0])
