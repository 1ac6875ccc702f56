"""Objectives on two and more views, each against its equation written out densely in float64, and its limits."""

import math
from itertools import combinations, permutations

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.losses import (
    CACR,
    DCL,
    DCLW,
    DHEL,
    HCL,
    MVDHEL,
    CrossModalHCL,
    CrossUniformity,
    HardContrastive,
    InfoNCE,
    MVInfoNCE,
    NTXent,
    SigLIP,
    SimpleContrastive,
    SupCon,
    Uniformity,
)

GROUP = torch.tensor([0, 0, 1, 2, 2, 3])


def stacked(a, b, t):
    """Logits of the 2 B rows against each other, own column, partner and same-group columns."""
    z = F.normalize(torch.cat([a, b]), dim=1)
    n = len(z)
    partner = (torch.arange(n) + n // 2) % n
    return z @ z.T / t, torch.eye(n, dtype=torch.bool), partner


def negatives(a, b, group=None):
    n = 2 * len(a)
    ids = (torch.arange(len(a)) if group is None else group).repeat(2)
    return ids[:, None] != ids, torch.arange(n)


def masked_lse(logits, keep, dim=1):
    return torch.logsumexp(torch.where(keep, logits, -torch.inf), dim)


@pytest.mark.parametrize("group", [None, GROUP])
def test_dcl_and_dclw(make, same_gradients, group):
    def written(a, b, sigma=None):
        logits, _, partner = stacked(a, b, 0.3)
        keep, rows = negatives(a, b, group)
        positive = logits[rows, partner]
        weight = 1.0
        if sigma:
            score = F.cosine_similarity(a, b)
            weight = (2 - len(a) * torch.softmax(score / sigma, 0)).repeat(2)
        return (masked_lse(logits, keep) - weight * positive).mean()

    a, b = make.z(6, 4), make.z(6, 4)
    same_gradients(lambda a, b: DCL(0.3)(a, b, group=group), written, a, b)
    same_gradients(lambda a, b: DCLW(0.3, sigma=0.5)(a, b, group=group), lambda a, b: written(a, b, 0.5), a, b)


@pytest.mark.parametrize("group", [None, GROUP])
@pytest.mark.parametrize(("tau_plus", "beta"), [(0.1, 1.0), (0.02, 0.5), (0.0, 2.0), (0.1, 0.0)])
def test_hcl(make, same_gradients, group, tau_plus, beta):
    t = 0.5

    def one(positive, logits, keep):
        e, count = logits.exp() * keep, keep.sum(1).double()
        importance = torch.where(keep, logits * beta, -torch.inf).exp()
        reweighted = (importance * e).sum(1) / (importance.sum(1) / count)
        raw = (reweighted - tau_plus * count * positive.exp()) / (1 - tau_plus)
        total = torch.maximum(raw, count * math.exp(-1 / t))
        return -torch.log(positive.exp() / (positive.exp() + total))

    def written(a, b):
        logits, _, partner = stacked(a, b, t)
        keep, rows = negatives(a, b, group)
        return one(logits[rows, partner], logits, keep).mean()

    def crossed(a, b):
        logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / t
        ids = torch.arange(len(a)) if group is None else group
        keep = ids[:, None] != ids
        return (one(logits.diagonal(), logits, keep) + one(logits.diagonal(), logits.T, keep)).mean() / 2

    a = make.z(6, 4)
    b = a + make.z(6, 4)
    settings = {"tau_plus": tau_plus, "beta": beta}
    same_gradients(lambda a, b: HCL(t, **settings)(a, b, group=group), written, a, b)
    same_gradients(lambda a, b: CrossModalHCL(t, **settings)(a, b, group=group), crossed, a, b)


def test_hcl_limits(make, same_gradients):
    a, b = make.z(6, 4), make.z(6, 4)
    off = {"tau_plus": 0.0, "beta": 0.0}
    same_gradients(HCL(0.2, **off), NTXent(0.2), a, b)
    same_gradients(CrossModalHCL(0.2, **off), InfoNCE(0.2), a, b)


def test_counting_the_negatives_keeps_their_gradient(make):
    """n = 2 B - 2 for B - 1 negatives puts all rows of well aligned pairs on the clamp; the true count none."""
    a = make.unit(32, 64)
    noise = make.unit(32, 64)
    b = F.normalize(a + 0.45 * noise, dim=1)
    loss = CrossModalHCL(0.5)
    loss(a, b)
    assert loss.monitors["clamp_rate"] == 0
    s = a @ b.T / 0.5
    off = ~torch.eye(32, dtype=torch.bool)
    e = (s.exp() * off).square().sum(1) / ((s.exp() * off).sum(1) / 31)
    inherited = (e - 0.1 * 62 * s.diagonal().exp()) / 0.9
    assert (inherited <= 62 * math.exp(-2)).float().mean() == 1


def score_gradient(loss, scores):
    """dL / ds_ij: with orthonormal rows on one side, the other side's gradient is it."""
    leaf = scores.clone().requires_grad_()
    loss(torch.eye(len(scores), dtype=scores.dtype), leaf.T).backward()
    return leaf.grad


def test_beta_moves_the_gradient_to_near_negatives(make):
    scores, off = make.z(12, 12).tanh(), ~torch.eye(12, dtype=torch.bool)
    hardness = []
    for beta in (0.0, 0.5, 1.0):
        g = score_gradient(CrossModalHCL(0.5, beta=beta, tau_plus=0.0, normalize=False), scores)[off]
        hardness.append(((g * scores[off]).sum() / g.sum()).item())
    assert hardness[0] < hardness[1] < hardness[2]


def test_the_temperature_sets_how_many_negatives_are_penalised(make):
    """dL / ds_ij = p_ij / T off the diagonal; the entropy of the relative penalties falls with the temperature."""
    scores, off = make.unit(12, 12), ~torch.eye(12, dtype=torch.bool)
    entropy = []
    for t in (0.07, 0.2, 0.3, 1.0):
        g = score_gradient(InfoNCE(t, symmetric=False, normalize=False), scores) * 12
        torch.testing.assert_close(g[off], (torch.softmax(scores / t, 1) / t)[off])
        share = g[off].view(12, 11)
        share = share / share.sum(1, keepdim=True)
        entropy.append(-(share * share.log()).sum(1).mean().item())
    assert entropy == sorted(entropy)


def test_dhel_and_mv_dhel(make, same_gradients):
    views = [make.z(5, 4) for _ in range(4)]

    def written(*views):
        z = [F.normalize(v, dim=1) for v in views]
        off = ~torch.eye(5, dtype=torch.bool)
        product = torch.stack([(torch.exp(v @ v.T / 0.4) * off).sum(1) for v in z]).prod(0)
        positive = torch.stack([torch.exp((v * w).sum(1) / 0.4) for v, w in combinations(z, 2)]).sum(0)
        return -(positive / product).log().mean()

    same_gradients(MVDHEL(0.4), written, *views)
    same_gradients(DHEL(0.4), written, *views[:2])


def test_mv_dhel_stays_finite_where_the_product_overflows(make):
    base = make.unit(1, 16).float()
    views = [F.normalize(base + 0.01 * make.z(256, 16).float(), dim=1) for _ in range(8)]
    naive = torch.stack([torch.exp(v @ v.T / 0.1).sum(1) for v in views]).prod(0)
    assert torch.isinf(naive).all()
    assert torch.isfinite(MVDHEL(0.1)(*views))


@pytest.mark.parametrize("group", [None, torch.tensor([0, 0, 1, 2, 2])])
def test_mv_infonce(make, same_gradients, group):
    views = [make.z(5, 4) for _ in range(3)]
    ids = torch.arange(5) if group is None else group

    def written(*views):
        z = torch.stack([F.normalize(v, dim=1) for v in views])
        e = torch.exp(torch.einsum("vid,wjd->vwij", z, z) / 0.4)
        eye, other_view = torch.eye(5, dtype=torch.bool), ~torch.eye(3, dtype=torch.bool)
        positive = (e.diagonal(dim1=2, dim2=3) * other_view[:, :, None]).sum((0, 1))
        other = ids[:, None] != ids
        keep = other[None, None] | (eye[None, None] & other_view[:, :, None, None])
        return ((e * keep).sum((0, 1, 3)).log() - positive.log()).mean()

    def per_view(*views):
        z = torch.stack([F.normalize(v, dim=1) for v in views])
        e = torch.exp(torch.einsum("vid,wjd->vwij", z, z) / 0.4) * ~torch.eye(3, dtype=torch.bool)[:, :, None, None]
        keep = (ids[:, None] != ids) | torch.eye(5, dtype=torch.bool)
        return ((e * keep).sum((1, 3)).log() - e.diagonal(dim1=2, dim2=3).sum(1).log()).mean()

    same_gradients(lambda *v: MVInfoNCE(0.4)(*v, group=group), written, *views)
    same_gradients(lambda *v: MVInfoNCE(0.4, per_view=True)(*v, group=group), per_view, *views)


def test_multi_view_losses_do_not_care_about_the_order_of_views(make):
    views = [make.z(5, 4) for _ in range(3)]
    for loss in (MVDHEL(0.3), MVInfoNCE(0.3), MVInfoNCE(0.3, per_view=True)):
        values = torch.stack([loss(*order) for order in permutations(views)])
        torch.testing.assert_close(values, values[:1].expand(6))


def test_siglip(make, same_gradients):
    loss = SigLIP(temperature=0.2, bias=-3.0).double()

    def written(a, b, group=None):
        logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2 - 3.0
        sign = 2 * torch.eye(6, dtype=torch.float64) - 1
        terms = F.softplus(-sign * logits)
        if group is not None:
            terms = terms * ((group[:, None] != group) | torch.eye(6, dtype=torch.bool))
        return terms.sum() / 6

    a, b = make.z(6, 4), make.z(6, 4)
    same_gradients(loss, written, a, b)
    same_gradients(lambda a, b: loss(a, b, group=GROUP), lambda a, b: written(a, b, GROUP), a, b)
    loss(a, b).backward()
    slope = (written_at(written, a, b, 1e-6) - written_at(written, a, b, -1e-6)) / 2e-6
    torch.testing.assert_close(loss.bias.grad, slope, rtol=1e-6, atol=1e-8)


def written_at(written, a, b, step):
    """SigLIP's equation with the bias moved by `step`."""
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2 - 3.0 + step
    return F.softplus(-(2 * torch.eye(6, dtype=torch.float64) - 1) * logits).sum() / 6


def test_supcon(make, same_gradients):
    label = torch.tensor([0, 1, 0, 2, 1, 0])

    def written(a, b):
        logits, own, _ = stacked(a, b, 0.1)
        ids = label.repeat(2)
        log_p = logits - masked_lse(logits, ~own)[:, None]
        positive = (ids[:, None] == ids) & ~own
        return -((log_p * positive).sum(1) / positive.sum(1)).mean()

    a, b = make.z(6, 4), make.z(6, 4)
    same_gradients(lambda a, b: SupCon(0.1)(a, b, label=label), written, a, b)
    same_gradients(lambda a, b: SupCon(0.1)(a, b, label=torch.arange(6)), NTXent(0.1), a, b)
    alone = SupCon(0.1)(a, label=torch.arange(6))
    assert alone.item() == 0  # no row has a positive


def test_hard_contrastive_keeps_the_hardest_share(make, same_gradients):
    def written(a, b, keep_share):
        logits, _, partner = stacked(a, b, 0.3)
        keep, rows = negatives(a, b)
        positive = logits[rows, partner]
        count = math.ceil(keep_share * (2 * len(a) - 2))
        hardest = torch.where(keep, logits, -torch.inf).topk(count, 1).values
        return -(positive - torch.logsumexp(torch.cat([positive[:, None], hardest], 1), 1)).mean()

    a, b = make.z(6, 4), make.z(6, 4)
    for share in (0.1, 0.5):
        same_gradients(HardContrastive(0.3, keep=share), lambda a, b, s=share: written(a, b, s), a, b)
    same_gradients(HardContrastive(0.3, keep=1.0), NTXent(0.3), a, b)


def test_simple_contrastive(make, same_gradients):
    def written(a, b):
        logits, _, partner = stacked(a, b, 1.0)
        keep, rows = negatives(a, b)
        return (-logits[rows, partner] + 0.7 * (logits * keep).sum(1)).mean()

    a, b = make.z(6, 4), make.z(6, 4)
    same_gradients(SimpleContrastive(0.7), written, a, b)


def test_cacr_with_raw_embeddings(make, same_gradients):
    def written(*views):
        total = 0.0
        for v, w in combinations(views, 2):
            distance = torch.cdist(v, w).square()
            off = ~torch.eye(5, dtype=torch.bool)
            p = torch.softmax(torch.where(off, -0.7 * distance, -torch.inf), 1)
            total = total - (p * distance).sum(1).mean() / 3
        return total

    loss = CACR(t_minus=0.7, normalize=False)
    same_gradients(loss.repulsion, written, *(make.z(5, 4) for _ in range(3)), atol=1e-7)


def test_uniformity(make, same_gradients):
    def written(a, b):
        off = ~torch.eye(6, dtype=torch.bool)
        return torch.log(torch.exp(-2 * (a[:, None] - b).square().sum(-1))[off].mean())

    a, b = make.z(6, 4) / 2, make.z(6, 4) / 2
    same_gradients(CrossUniformity(normalize=False), written, a, b)
    same_gradients(Uniformity(normalize=False), lambda a: written(a, a), a)
