from __future__ import annotations

import pytest
import torch

from pipeline.zoo.vit import Attention, Patches, patch_size


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (28, 4), (32, 4), (49, 7), (40, 5), (1, 1), (31, 4)])
def test_patches_divide_where_they_can(side: int, patch: int) -> None:
    assert patch_size(side) == patch


def test_a_picture_that_no_patch_divides_is_padded() -> None:
    patches = Patches((1, 31, 32), 16)
    assert patches(torch.randn(2, 1, 31, 32)).shape == (2, 64, 16)


def test_attention_is_torchs_own() -> None:
    torch.manual_seed(0)
    attention = Attention(16, 4)
    x = torch.randn(2, 5, 16)
    q, k, v = (layer(x).view(2, 5, 4, 4).transpose(1, 2) for layer in (attention.q, attention.k, attention.v))
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 16)
    assert torch.allclose(attention(x), attention.proj(mixed), atol=1e-6)
