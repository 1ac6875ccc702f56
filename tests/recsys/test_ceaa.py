"""The semantic item graphs, the views and the anchor's contrast against their written-out forms."""

import numpy as np
import torch
from recsys_formulas import formula
from torch.nn.functional import normalize

from counterpoint.common.trainers import create_system, override
from counterpoint.recsys.ceaa import CEAA, AnchorContrast, perturbed
from counterpoint.recsys.contrast_configs import CEAAConfig


def dense_anchor(anchor, semantic, temperature):
    b, keys = normalize(anchor, dim=1), [normalize(s, dim=1) for s in semantic]
    total = 0.0
    for i in range(len(b)):
        others = sum((b[i] @ s[j] / temperature).exp() for s in keys for j in range(len(b)) if j != i)
        for s in keys:
            own = (b[i] @ s[i] / temperature).exp()
            total = total - torch.log(own / (own + others))
    return total / (len(b) * len(keys))


def test_the_anchors_contrast_is_the_dense_one():
    values = [formula(5, 3, ph).requires_grad_() for ph in (0.1, 0.6, 1.4)]
    mine, dense = AnchorContrast(0.3)(values[0], values[1:]), dense_anchor(values[0], values[1:], 0.3)
    torch.testing.assert_close(mine, dense)
    for x, y in zip(torch.autograd.grad(mine, values), torch.autograd.grad(dense, values)):
        torch.testing.assert_close(x, y)


def test_a_single_item_has_nobody_to_be_told_from():
    assert float(AnchorContrast(0.3)(formula(1, 3, 0.1), [formula(1, 3, 0.6)])) == 0


def test_views_stay_in_their_orthant_and_are_disturbed_as_far_as_they_are_long():
    torch.manual_seed(0)
    e = formula(50, 8, 0.3) * torch.linspace(0.1, 3, 50)[:, None]
    moved = perturbed(e, 0.2) - e
    assert bool((moved * e >= 0).all())
    torch.testing.assert_close(moved.norm(dim=1), 0.2 * e.norm(dim=1) / e.norm(dim=1).mean() * 1.0)
    assert torch.equal(perturbed(e, 0.0), e)


def test_semantic_graphs_are_of_features_and_of_what_is_met_together():
    changes = {"data.users": 40, "data.items": 30, "dim": 4, "neighbours": 3, "shared": 0.25}
    system = create_system(CEAA, override(CEAAConfig(), changes))
    met = np.zeros((system.n_users, 30))
    met[system.histories.queries, system.histories.keys] = 1
    counts = met.T @ met
    np.fill_diagonal(counts, 0)
    eye = torch.eye(30)
    assert len(system.semantic) == 2
    for graph in system.semantic:
        whole = graph(eye)
        assert whole.max() <= 1 / 3 + 1e-6
        together = (whole - whole.diagonal().diag()) > 0
        for i in range(30):
            worst = np.sort(counts[i])[-3]
            sure = [j for j in range(30) if counts[i, j] > worst]
            assert together[i, sure].all(), "the three most met together are neighbours"
        share = whole.sum(1)
        known = whole.diagonal() > 0.2
        assert torch.allclose(share[known], torch.ones(int(known.sum())), atol=1e-5)
    scores = system.eval().scorer().scores(torch.arange(2))
    users, items = system.tables()
    torch.testing.assert_close(scores, users[:2] @ items.T)
