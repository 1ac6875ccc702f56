"""Gram anchoring: the exact norm, what leaves it unchanged, and that a drifting student keeps its structure."""

import pytest
import torch
from torch.nn.functional import normalize

from counterpoint.common.trainers.gram_anchor import gram_distance


def dense(student, anchor):
    s, g = normalize(student, dim=-1), normalize(anchor, dim=-1)
    return torch.linalg.matrix_norm(s @ s.mT - g @ g.mT).square() / student.shape[1] ** 2


@pytest.mark.parametrize(("places", "width", "other"), [(4, 16, 16), (40, 6, 6), (40, 6, 9), (5, 30, 12)])
def test_is_the_squared_frobenius_norm_by_either_way(places, width, other):
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(3, places, width, generator=generator, dtype=torch.float64)
    g = torch.randn(3, places, other, generator=generator, dtype=torch.float64)
    assert torch.allclose(gram_distance(s, g), dense(s, g), rtol=1e-10)
    assert torch.autograd.gradcheck(gram_distance, (s[:1].requires_grad_(), g[:1]))


def test_rotations_and_lengths_of_the_features_do_not_count():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, 8, generator=generator, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    lengths = torch.rand(2, 30, 1, generator=generator, dtype=torch.float64) + 0.5
    assert gram_distance(x @ turn * lengths, x).max() < 1e-20


def test_with_the_term_a_drifting_student_keeps_its_patch_structure_while_another_loss_falls():
    generator = torch.Generator().manual_seed(0)
    anchor = torch.randn(1, 25, 16, generator=generator)
    goal = torch.randn(1, 16, generator=generator)

    def drift(weight):
        x = anchor.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.05)
        first = None
        for _ in range(300):
            other = 1 - torch.cosine_similarity(x.mean(1), goal).mean()
            first = other.item() if first is None else first
            optimizer.zero_grad()
            (other + weight * gram_distance(x, anchor).mean()).backward()
            optimizer.step()
        a, b = (normalize(v, dim=-1) @ normalize(v, dim=-1).mT for v in (x.detach(), anchor))
        return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item(), other.item() / first

    kept, fell = drift(50.0)
    lost, _ = drift(0.0)
    assert kept > 0.95
    assert fell < 0.7
    assert lost < kept - 0.05
