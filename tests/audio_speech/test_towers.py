"""Towers and CCA: sizes, and the defining property of canonical variates."""

import pytest
import torch

from counterpoint.audio_speech.models import CCAProjection, VGGTower


@pytest.mark.parametrize(("channels", "parameters"), [((24, 48, 96, 96), 331_000), ((12, 24, 48, 48), 83_884)])
def test_a_tower_has_the_documented_parameters(channels, parameters):
    expected, width = 0, 1
    for out in channels:  # weights of two convolutions, gain and bias of their batch norms
        expected += 9 * width * out + 9 * out * out + 4 * out
        width = out
    expected += width * 32 + 2 * 32
    assert sum(p.numel() for p in VGGTower(channels).parameters()) == expected == parameters


def test_a_tower_does_not_mix_samples_in_evaluation():
    tower = VGGTower((4, 4, 4, 4)).eval()
    x = torch.randn(5, 1, 80, 100)
    assert torch.allclose(tower(x)[2], tower(x[2:3])[0], atol=1e-5)
    assert tower(torch.randn(2, 1, 92, 42)).shape == (2, 32)


def test_cca_makes_paired_views_white_and_diagonally_correlated():
    torch.manual_seed(0)
    source = torch.randn(4000, 6)
    x = source @ torch.randn(6, 8) + 0.3 * torch.randn(4000, 8) + 2.0
    y = source @ torch.randn(6, 8) + 0.3 * torch.randn(4000, 8) - 1.0
    cca = CCAProjection(8, regulariser=1e-9)
    assert torch.equal(cca(x, "x"), x), "the identity before fitting"
    cca.fit(x, y)
    a, b = cca(x, "x"), cca(y, "y")
    eye = torch.eye(8)
    assert torch.allclose(a.T @ a / 3999, eye, atol=1e-3)
    assert torch.allclose(b.T @ b / 3999, eye, atol=1e-3)
    assert torch.allclose(a.T @ b / 3999, torch.diag(cca.correlations), atol=1e-3)
    assert (cca.correlations[:-1] >= cca.correlations[1:]).all()
    other = CCAProjection(8, regulariser=1e-9)
    other.fit(x @ torch.randn(8, 8), y)
    assert torch.allclose(other.correlations, cca.correlations, atol=1e-3), "linear maps of a view change nothing"
    with pytest.raises(ValueError, match="more pairs"):
        cca.fit(x[:5], y[:5])
