from __future__ import annotations

from known_costs import addition, conv

from pipeline.latency_model.features import cost_terms, group, shape_features
from pipeline.latency_model.operators import Operator, invocation


def test_a_convolution_counts_whole_blocks() -> None:
    terms = cost_terms(conv(side=5, before=3, after=20))
    assert conv(5, 3, 20).macs == 25 * 20 * 27
    # 25 pixels, 27 inputs of an output in fours make 28, 20 channels in blocks make 20, 24, 32, 32, 48, 64.
    assert [terms[f"macs {block}"] for block in (1, 8, 16, 32, 48, 64)] == [
        25 * 28 * columns for columns in (20, 24, 32, 32, 48, 64)
    ]
    assert terms["macs 6 16"] == 30 * 32 * 28
    assert terms["positions"] == 25 * 9
    assert terms["gathered"] == 25 * 27
    assert terms["gathered blocks"] == 25 * 9 * 16
    assert (terms["depth rest"], terms["column rest 4"], terms["column rest 16"]) == (25 * 3, 0, 25 * 4)


def test_a_point_convolution_gathers_nothing() -> None:
    assert cost_terms(conv(4, 16, 16, kernel=1))["gathered"] == 0


def test_other_operators_cost_calls_and_elements() -> None:
    terms = cost_terms(addition(side=4, channels=20))
    assert terms == {"call": 1, "in": 640, "out": 320, "lines": 16, "blocked": 16 * 32}


def test_widths_in_whole_blocks_are_a_group_of_their_own() -> None:
    assert group(conv(4, 8, 32)) == "conv window in4 out16"
    assert group(conv(4, 8, 31)) == "conv window in4"
    assert group(conv(4, 7, 32)) == "conv window out16"
    assert group(conv(4, 7, 31, kernel=1)) == "conv point"
    assert group(Operator(kind="transpose", detail="0231", inputs=4, outputs=4)) == "transpose 0231"
    assert group(invocation(4, 4)) == "invocation"


def test_trees_see_what_is_left_of_blocks() -> None:
    narrow, wide = shape_features(conv(4, 8, 31)), shape_features(conv(4, 8, 32))
    assert len(narrow) == len(wide)
    assert narrow[12:17] == (3, 7, 15, 31, 31)
    assert wide[12:17] == (0, 0, 0, 0, 32)
