"""Quadruples by their definition."""

import pytest
import torch

from counterpoint.common.metrics import winoground


def test_each_figure_by_its_definition():
    scores = torch.randn(50, 2, 2, generator=torch.Generator().manual_seed(0))
    text = [bool(s[0, 0] > s[1, 0] and s[1, 1] > s[0, 1]) for s in scores]
    thing = [bool(s[0, 0] > s[0, 1] and s[1, 1] > s[1, 0]) for s in scores]
    found = winoground(scores).metrics
    assert found["text"] == pytest.approx(sum(text) / 50)
    assert found["thing"] == pytest.approx(sum(thing) / 50)
    assert found["group"] == pytest.approx(sum(a and b for a, b in zip(text, thing)) / 50)


def test_random_scores_are_at_chance():
    found = winoground(torch.randn(40_000, 2, 2, generator=torch.Generator().manual_seed(1)))
    for name, chance in found.chance.items():
        assert found.metrics[name] == pytest.approx(chance, abs=0.01)


def test_an_encoder_that_hears_no_difference_has_zero():
    assert winoground(torch.ones(5, 2, 2)).metrics == {"text": 0.0, "thing": 0.0, "group": 0.0}
