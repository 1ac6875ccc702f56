"""Objectives with labels, regression targets or only covariances, against their equations in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.kernels import Pairs
from counterpoint.common.losses import (
    BMC,
    MLCD,
    WMSE,
    BarlowTwins,
    DecoupledSoftmax,
    InfoNCE,
    Metrix,
    ShuffledGroupWhitening,
    SimLAP,
    SoftTopK,
    SupReMix,
    VICReg,
    WhitenedCSE,
    cluster_labels,
    label_density_weights,
)


def unit(z):
    return F.normalize(z, dim=-1)


PAIRS = Pairs(torch.tensor([0, 2, 3, 3, 6]), torch.tensor([0, 3, 5, 1, 2, 6]))
ROWS = [[0, 3], [5], [], [1, 2, 6]]


def test_decoupled_positives_do_not_compete(make, same_gradients):
    def written(q, k):
        s, total = unit(q) @ unit(k).T / 0.2, 0.0
        for i, positives in enumerate(ROWS):
            negatives = [j for j in range(7) if j not in positives]
            for p in positives:
                row = torch.cat([s[i, p : p + 1], s[i, negatives]])
                total = total + (torch.logsumexp(row, 0) - s[i, p]) / len(positives) / 4
        return total

    same_gradients(lambda q, k: DecoupledSoftmax(0.2)(q, k, PAIRS), written, make.z(4, 5), make.z(7, 5))


def test_soft_top_k(make, same_gradients):
    loss, q, k = SoftTopK(k=2, temperature=0.25), make.z(4, 5), make.z(7, 5)

    def root(s):
        low, high = torch.full((4,), -50.0, dtype=s.dtype), torch.full((4,), 50.0, dtype=s.dtype)
        for _ in range(200):
            middle = (low + high) / 2
            above = torch.sigmoid(2 * (s + middle[:, None])).sum(1) > 2
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def written(q, k):
        s = 4 * unit(q) @ unit(k).T
        t = root(s.detach())
        w = torch.sigmoid(2 * (s.detach() + t[:, None]))
        w = w * (1 - w)
        t = t - ((w * s).sum(1) - (w * s).sum(1).detach()) / w.sum(1)  # the implicit gradient
        terms = [-F.logsigmoid(2 * (s[i, p] + t[i])) / len(ps) for i, ps in enumerate(ROWS) for p in ps]
        return torch.stack(terms).sum() / 4

    same_gradients(lambda q, k: loss(q, k, PAIRS), written, q, k, atol=1e-8)
    t = loss.threshold(*loss.embed(q, k))
    counts = torch.sigmoid(2 * (4 * unit(q) @ unit(k).T + t[:, None])).sum(1)
    torch.testing.assert_close(counts, torch.full((4,), 2.0, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [1.0, 0.05, 0.005])
def test_soft_top_k_gradient_by_finite_differences(make, temperature):
    loss, k = SoftTopK(k=3, temperature=temperature, normalize=False), make.unit(9, 4)
    q = make.unit(4, 4).requires_grad_()
    direction = make.z(4, 4)
    (g,) = torch.autograd.grad(loss(q, k, PAIRS), q)
    step = 1e-5 * temperature
    up, down = (loss((q + sign * step * direction).detach(), k, PAIRS) for sign in (1, -1))
    torch.testing.assert_close((g * direction).sum(), (up - down) / (2 * step), rtol=1e-5, atol=1e-6)


def test_mlcd(make, same_gradients):
    label = torch.tensor([[0, 4], [2, -1], [5, 1]])
    loss = MLCD(6, 4, scale=3.0, margin=0.2, sampled=1.0).double()

    def written(z, centres):
        s, total = unit(z) @ unit(centres).T, 0.0
        for i, row in enumerate(label.tolist()):
            positives = [p for p in row if p >= 0]
            negatives = [j for j in range(6) if j not in positives]
            push = torch.log(1 + torch.exp(3 * s[i, negatives]).sum())
            total = total + (push + torch.log(1 + torch.exp(-3 * (s[i, positives] - 0.2)).sum())) / 3
        return total

    def call(z, centres):
        return torch.func.functional_call(loss, {"centres": centres}, (z, label))

    same_gradients(call, written, make.z(3, 4), make.z(6, 4))


def test_mlcd_draws_its_share_and_all_positives():
    loss = MLCD(1000, 4, sampled=0.1, generator=torch.Generator().manual_seed(0))
    kept = loss._negatives(torch.tensor([3, 5]))
    assert kept[[3, 5]].all()
    assert 100 <= kept.sum() <= 102


def test_cluster_labels_are_the_nearest_centres_of_one_clustering():
    generator = torch.Generator().manual_seed(0)
    centres = unit(torch.randn(6, 8, generator=generator))
    group = torch.randint(0, 6, (300,), generator=generator)
    x = 3 * centres[group] + 0.1 * torch.randn(300, 8, generator=generator)
    for batch in (None, 128):
        labels, found = cluster_labels(x, 6, nearest=3, batch=batch)
        assert labels.shape == (300, 3)
        assert torch.equal(labels, (unit(x) @ found.T).topk(3).indices)
        assert all(len(set(labels[group == g, 0].tolist())) == 1 for g in range(6))
    again, _ = cluster_labels(x, 6, nearest=3)
    assert torch.equal(again, cluster_labels(x, 6, nearest=3)[0])
    with pytest.raises(ValueError, match="between 2 and the number of samples"):
        cluster_labels(x[:3], 6)


def test_mlcd_learns_the_clusters_that_its_first_stage_found():
    """Both stages on groups of points: a linear encoder then has each point nearest to its own cluster's centre."""
    generator = torch.Generator().manual_seed(0)
    centres = unit(torch.randn(5, 12, generator=generator))
    x = centres[torch.arange(200) % 5] + 0.15 * torch.randn(200, 12, generator=generator)
    labels, _ = cluster_labels(x, 5, nearest=1)
    torch.manual_seed(0)
    encoder, loss = torch.nn.Linear(12, 4), MLCD(5, 4, scale=8.0, margin=0.0, sampled=1.0)
    optimizer = torch.optim.Adam([*encoder.parameters(), *loss.parameters()], 0.05)
    for _ in range(60):
        optimizer.zero_grad()
        loss(encoder(x), labels).backward()
        optimizer.step()
    nearest = (unit(encoder(x)) @ unit(loss.centres).T).argmax(1)
    assert (nearest == labels[:, 0]).float().mean() > 0.98


def test_metrix(make, same_gradients):
    label = torch.tensor([0, 0, 1, 1, 1, 2])
    loss = Metrix(base="multi-similarity", b=2.0, g=10.0, m=0.5, hardest=2, generator=torch.Generator().manual_seed(0))

    def call(z):
        loss.generator.manual_seed(0)
        return loss(z, label)

    def written(z):
        z = unit(z)
        s, total = z @ z.T, 0.0
        loss.generator.manual_seed(0)
        lam, v, real = loss.mixtures(z, label)
        assert real.tolist() == [[True] * 2] * 5 + [[False] * 2]
        for i in range(6):
            positives = [j for j in range(6) if j != i and label[j] == label[i]]
            negatives = [j for j in range(6) if label[j] != label[i]]
            total = total + torch.log(1 + torch.exp(-2 * (s[i, positives] - 0.5)).sum()) / 2
            total = total + torch.log(1 + torch.exp(10 * (s[i, negatives] - 0.5)).sum()) / 10
            if positives:
                score = v[i] @ z[i]
                total = total + 0.4 * torch.log(1 + lam * torch.exp(-2 * (score - 0.5)).sum()) / 2
                total = total + 0.4 * torch.log(1 + (1 - lam) * torch.exp(10 * (score - 0.5)).sum()) / 10
        return total / 6

    same_gradients(call, written, make.z(6, 4))


def test_metrix_mixes_a_positive_with_the_hardest_negatives(make):
    z, label = make.unit(8, 4), torch.arange(8) // 2
    loss = Metrix(base="multi-similarity", hardest=1, generator=torch.Generator().manual_seed(1))
    lam, v, _ = loss.mixtures(z, label)
    s = (z @ z.T).masked_fill(label[:, None] == label, -torch.inf)
    partner = torch.arange(8) ^ 1
    torch.testing.assert_close(v[:, 0], unit(lam * z[partner] + (1 - lam) * z[s.argmax(1)]))


def test_metrix_clean_is_a_mean_over_its_nonzero_terms(make, same_gradients):
    label = torch.tensor([0, 1, 0, 2, 1, 0, 2])

    def written(z):
        z, pull, push = unit(z), [], []
        for i, j in itertools.permutations(range(7), 2):
            d = (z[i] - z[j]).norm()
            if label[i] == label[j]:
                pull.append(d)
            elif d < 1.2:
                push.append(1.2 - d)
        return torch.stack(pull).mean() + torch.stack(push).mean()

    loss = Metrix(m=1.2, weight=0.0, anchor_weight=0.0, block=3)
    same_gradients(lambda z: loss(z, label), written, make.z(7, 3))
    twins = torch.ones(2, 3).requires_grad_()
    loss(twins, torch.zeros(2, dtype=torch.int64)).backward()
    assert torch.isfinite(twins.grad).all()  # a distance of zero has no direction


def test_metrix_mixes_what_the_caller_mixes(make, same_gradients):
    """Given `mix`, inputs or features are mixed: with the identity as encoder it is the mixture of embeddings."""
    label, z = torch.tensor([0, 0, 1, 1, 1, 2]), make.z(6, 4)
    loss = Metrix(generator=torch.Generator().manual_seed(0))
    for with_positive in (True, False):

        def by_caller(z, with_positive=with_positive):
            v = unit(z)
            return loss.mixed(v, label, with_positive, 0.3, mix=lambda a, b, lam: lam * v[a] + (1 - lam) * v[b])

        same_gradients(lambda z, k=with_positive: loss.mixed(unit(z), label, k, 0.3), by_caller, z)


def test_metrix_mixes_the_hardest_negatives_of_each_anchor(make):
    z, label, seen = make.unit(8, 4), torch.arange(8) // 2, []
    loss = Metrix(hardest=1)

    def mix(first, second, lam):
        seen.append((first, second))
        return lam * z[first] + (1 - lam) * z[second]

    loss.mixed(z, label, True, 0.3, mix)
    first, second = seen[0]
    assert torch.equal(first, torch.arange(8) ^ 1)
    nearest = (z @ z.T).masked_fill(label[:, None] == label, -torch.inf).argmax(1)
    assert torch.equal(second, nearest)


def test_half_of_metrix_calls_mix_a_positive_and_lam_is_beta(make):
    loss = Metrix(generator=torch.Generator().manual_seed(0))
    kinds, lams = zip(*(loss.draw(torch.zeros(1)) for _ in range(2000)), strict=True)
    assert abs(sum(kinds) / 2000 - 0.5) < 0.04
    lams = torch.tensor(lams)
    assert abs(lams.mean() - 0.5) < 0.02
    assert abs(lams.var() - 1 / 20) < 0.01  # Beta(2, 2)


def test_simlap_draws_the_second_class_as_it_is_told():
    label = torch.arange(40) % 4
    for pairs in ("identical", "distinct", "arbitrary"):
        loss = SimLAP(4, 4, width=2, hidden=2, pairs=pairs, generator=torch.Generator().manual_seed(0))
        other = loss._second(label)
        assert torch.equal(other, label) == (pairs == "identical")
        assert (other != label).all().item() == (pairs == "distinct")
        assert set(other.tolist()) == {0, 1, 2, 3}


def test_supremix(make, same_gradients):
    z, y = make.z(6, 4), torch.tensor([1.0, 2.0, 2.0, 4.0, 1.0, 9.0], dtype=torch.float64)
    loss = SupReMix(0.5, window=3.0, generator=torch.Generator().manual_seed(0))
    mixing = loss.draw(6, z)

    def written(z):
        z, losses = unit(z), []
        fixed = z.detach()
        for i in range(6):
            entries, positives = [], []
            for r in range(6):
                if r != i:
                    s = z[i] @ z[r] / 0.5
                    entries.append(s + math.log(abs(y[i] - y[r]) + 1))
                    if y[r] == y[i]:
                        positives.append(s)
            for k in range(6):
                if y[k] != y[i]:
                    a = mixing[i, k]
                    mixed = y[i] * a + (1 - a) * y[k]
                    entries.append(
                        z[i] @ (a * fixed[i] + (1 - a) * fixed[k]) / 0.5 + torch.log((y[i] - mixed).abs() + 1)
                    )
            for j, k in itertools.product(range(6), repeat=2):
                if y[j] < y[i] < y[k] and y[i] - y[j] < 3 and y[k] - y[i] < 3:
                    a = (y[k] - y[i]) / (y[k] - y[j])
                    s = z[i] @ (a * fixed[j] + (1 - a) * fixed[k]) / 0.5
                    entries.append(s)
                    positives.append(s)
            if positives:
                losses.append(torch.logsumexp(torch.stack(entries), 0) - torch.stack(positives).mean())
            else:
                losses.append(0 * z.sum())
        return torch.stack(losses).mean()

    same_gradients(lambda z: loss.row_losses(unit(z), y, mixing).mean(), written, z)


def test_supremix_draws_beta_2_8():
    draws = SupReMix(generator=torch.Generator().manual_seed(0)).draw(100, torch.zeros(1, dtype=torch.float64))
    assert abs(draws.mean().item() - 0.2) < 0.01
    assert abs(draws.var().item() - 0.2 * 0.8 / 11) < 0.002


def test_bmc(make, same_gradients):
    p, y = make.z(7), make.z(7) + 300.0

    def written(p, y):
        logits = -((p[:, None] - y) ** 2) / (2 * 0.3**2)
        return 2 * 0.3**2 * F.cross_entropy(logits, torch.arange(7))

    loss = BMC(0.3).double()
    loss.noise.data.fill_(0.3)
    same_gradients(loss, written, p + 300, y, atol=1e-9)
    single = BMC(0.3).double()(torch.ones(1).double(), torch.zeros(1).double())
    assert single.item() == 0  # nothing competes


def test_label_density_weights_favour_the_rare(make):
    y = torch.cat([torch.zeros(90), torch.full((10,), 10.0)])
    w = label_density_weights(y)
    assert (w[90:] / w[0]).allclose(torch.tensor(9.0))
    assert w.mean().item() == pytest.approx(1.0)


def test_simlap(make, same_gradients):
    torch.manual_seed(0)
    loss = SimLAP(3, 4, width=6, hidden=5, block=4).double()
    label, other = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 0, 2, 1, 0, 2])

    def written(z):
        gate = loss.gate((loss.classes(label) + loss.classes(other)) / 2)
        terms = []
        for i in range(6):
            s = F.cosine_similarity(gate[i] * z[i][None], gate[i] * z, dim=1) / 0.1
            negatives = [k for k in range(6) if label[k] not in (label[i], other[i])]
            for p in range(6):
                if label[p] == other[i]:
                    terms.append(torch.logsumexp(torch.cat([s[p : p + 1], s[negatives]]), 0) - s[p])
        return torch.stack(terms).mean()

    same_gradients(lambda z: loss(z, label, other=other), written, make.z(6, 4))
    loss.zero_grad()
    z = make.z(6, 4)
    loss(z, label, other=other).backward()
    ours = loss.classes.weight.grad.clone()
    loss.zero_grad()
    written(z).backward()
    torch.testing.assert_close(ours, loss.classes.weight.grad)


def test_vicreg_and_barlow(make, same_gradients):
    def vicreg(a, b):
        total = 25 * F.mse_loss(a, b)
        for z in (a, b):
            total = total + 25 / 2 * F.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean()
            c = torch.cov(z.T)
            total = total + (c**2).masked_fill(torch.eye(4, dtype=torch.bool), 0).sum() / 4
        return total

    def barlow(a, b):
        a, b = (F.batch_norm(z, None, None, training=True, eps=1e-5) for z in (a, b))
        c = a.T @ b / len(a)
        off = (c**2).masked_fill(torch.eye(4, dtype=torch.bool), 0).sum()
        return ((c.diagonal() - 1) ** 2).sum() + 0.0051 * off

    a, b = 0.5 * make.z(7, 4), 0.5 * make.z(7, 4)
    same_gradients(VICReg(), vicreg, a, b)
    same_gradients(BarlowTwins(), barlow, a, b)


def test_wmse(make, same_gradients):
    def written(a, b):
        z = torch.cat([a, b])
        z = z - z.mean(0)
        inverse = torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T)))
        a, b = (unit(w) for w in (z @ inverse.T).chunk(2))
        return (2 - 2 * (a * b).sum(1)).mean()

    a, b = make.z(8, 4), make.z(8, 4)
    same_gradients(WMSE(), written, a, b)
    with pytest.raises(ValueError, match="sub-batches"):
        WMSE(group_size=4)(a, b)


def test_w_mse_does_not_see_a_linear_map_of_its_input(make):
    """Whitening cancels any invertible map up to a rotation, which unit distances ignore."""
    a, b, mix = make.z(12, 4), make.z(12, 4), make.z(4, 4)
    torch.testing.assert_close(WMSE()(a @ mix, b @ mix), WMSE()(a, b))


def test_group_whitening_whitens_its_groups_and_has_a_gradient(make):
    layer = ShuffledGroupWhitening(6, groups=1, eps=1e-12).double()
    h = (make.z(40, 6) @ make.z(6, 6)).requires_grad_()
    white = layer(h)
    torch.testing.assert_close(white.T @ white / 40, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-7)
    grouped = ShuffledGroupWhitening(6, groups=3, eps=1e-12, generator=torch.Generator().manual_seed(0)).double()
    assert torch.autograd.gradcheck(
        lambda x: (grouped.generator.manual_seed(0), grouped(x))[1], h[:9].detach().requires_grad_()
    )


def test_group_whitening_at_evaluation_does_not_see_the_batch(make):
    layer = ShuffledGroupWhitening(6, groups=2, momentum=1.0).double()
    h = make.z(40, 6)
    layer(h)
    layer.eval()
    torch.testing.assert_close(layer(h)[:3], layer(h[:3]))


def test_whitened_cse_with_one_group_is_zca_and_infonce(make, same_gradients):
    def zca(h):
        h = h - h.mean(0)
        values, vectors = torch.linalg.eigh(h.T @ h / len(h) + 1e-5 * torch.eye(4))
        return h @ vectors @ torch.diag(values.rsqrt()) @ vectors.T

    def written(*views):
        first, *rest = [zca(v) for v in views]
        return sum(InfoNCE(0.05, symmetric=False)(first, v) for v in rest)

    same_gradients(WhitenedCSE(4, 1, mlp=False).double(), written, *(make.z(9, 4) for _ in range(3)), atol=1e-7)
