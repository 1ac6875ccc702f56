"""Tokens merged by density, and several heads over the same features."""

import pytest
import torch
from torch import nn

from counterpoint.common.models import MultiHead, TokenMerging
from counterpoint.common.models.token_merging import density_peaks


def test_density_peaks_finds_separate_groups():
    generator = torch.Generator().manual_seed(0)
    group = torch.randint(0, 3, (4, 30), generator=generator)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    x = centres[group] + 0.1 * torch.randn(4, 30, 2, generator=generator)
    found = density_peaks(x, 3)
    for mine, true in zip(found, group, strict=True):
        pairs = set(zip(mine.tolist(), true.tolist(), strict=True))
        assert len(pairs) == 3 == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_padding_changes_nothing():
    torch.manual_seed(0)
    layer = TokenMerging(8, 0.25, heads=2).double()
    x = torch.randn(2, 12, 8, dtype=torch.float64)
    mask = torch.arange(12) < torch.tensor([9, 12])[:, None]
    # The convolution sees one token further; beyond it, padding has no influence.
    other = x.clone()
    other[0, 10:] = 100 * torch.randn(2, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x, mask), layer(other, mask))


def test_one_cluster_is_the_weighted_mean_with_attention():
    torch.manual_seed(0)
    layer = TokenMerging(6, 0.01, heads=1).double()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    z = layer.norm(x + layer.conv(x.mT).mT)
    w = layer.score(z)
    mean = (z * w.softmax(1)).sum(1, keepdim=True)
    q, (k, v) = layer.query(layer.before(mean)), layer.key_value(layer.before(z)).chunk(2, -1)
    attention = ((q @ k.mT) / 6**0.5 + w.mT).softmax(-1)
    torch.testing.assert_close(layer(x), mean + layer.out(attention @ v), rtol=1e-5, atol=1e-6)


def test_heads_see_the_same_features_or_each_its_own():
    torch.manual_seed(0)
    heads = MultiHead(3, lambda: nn.Linear(4, 2))
    h = torch.randn(5, 4)
    out = heads(h)
    assert out.shape == (3, 5, 2)
    assert not torch.equal(out[0], out[1])
    torch.testing.assert_close(heads(h.expand(3, 5, 4)), out)
    with pytest.raises(ValueError, match="3 heads were given 2"):
        heads(h.expand(2, 5, 4))
