"""Soft targets and joint scores against their equations written out densely in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.kernels import Weighted
from counterpoint.common.losses import (
    CUA,
    CWCL,
    GRAM,
    Alignment,
    CrossUniformity,
    InfoNCE,
    MixCo,
    ModX,
    SepCLR,
    SoftClip,
    SoftContrastive,
    Symile,
    Uniformity,
    gram_volume,
    joint_entropy,
)
from counterpoint.common.metrics.scores import SCORES
from counterpoint.common.models import MissingIndicator


def unit(z):
    return F.normalize(z, dim=-1)


def cross_entropy(logits, target):
    return -(target * logits.log_softmax(1)).sum(1).mean()


def test_cwcl(make, same_gradients):
    p, q, e = make.z(6, 4), make.z(6, 4), make.z(6, 9)

    def written(p, q, teacher=None):
        s, t = unit(p) @ unit(q).T / 0.2, unit(p.detach() if teacher is None else teacher)
        w = (1 + t @ t.T) / 2
        return cross_entropy(s, w / w.sum(1, keepdim=True)) + cross_entropy(s.T, torch.eye(6, dtype=torch.float64))

    same_gradients(CWCL(0.2), written, p, q)
    same_gradients(lambda p, q: CWCL(0.2)(p, q, teacher=e), lambda p, q: written(p, q, e), p, q)


def test_cwcl_with_identity_weights_is_clip(make, same_gradients):
    one = Weighted(torch.arange(6)[:, None], torch.ones(6, 1, dtype=torch.float64))
    loss = CWCL(0.2)
    same_gradients(
        lambda p, q: loss(p, q, targets=one), lambda p, q: 2 * InfoNCE(0.2)(p, q), make.z(6, 4), make.z(6, 4)
    )


def test_soft_clip_and_dialog2flow(make, same_gradients):
    a, b, e, label = make.z(6, 4), make.z(6, 4), make.z(6, 7), torch.tensor([0, 1, 0, 2, 1, 0])

    def written(a, b, target):
        s = unit(a) @ unit(b).T / 0.2
        return (cross_entropy(s, target) + cross_entropy(s.T, target)) / 2

    own = torch.softmax(unit(b) @ unit(b).T / 0.125, 1)
    soft = torch.softmax(unit(e) @ unit(e).T / 0.35, 1)
    hard = (label[:, None] == label).double()
    hard = hard / hard.sum(1, keepdim=True)
    teacher = torch.softmax(unit(e) @ unit(e).T / 0.125, 1)
    same_gradients(lambda a: SoftClip(0.2)(a, b), lambda a: written(a, b, own), a)
    same_gradients(lambda a, b: SoftClip(0.2)(a, b, teacher=e), lambda a, b: written(a, b, teacher), a, b)
    d2f = SoftContrastive(0.2)
    same_gradients(lambda a, b: d2f(a, b, label_embedding=e), lambda a, b: written(a, b, soft), a, b)
    same_gradients(lambda a, b: d2f(a, b, label=label), lambda a, b: written(a, b, hard), a, b)
    with pytest.raises(ValueError, match="either"):
        d2f(a, b)


def test_mixco_gives_a_fixed_point_its_whole_mass(make, same_gradients):
    perm, mixing = torch.tensor([0, 2, 1, 3]), torch.tensor([0.3, 0.4, 0.9, 0.2], dtype=torch.float64)
    target = torch.tensor([[1, 0, 0, 0], [0, 0.4, 0.6, 0], [0, 0.1, 0.9, 0], [0, 0, 0, 1]], dtype=torch.float64)

    def written(a, b):
        s = unit(a) @ unit(b).T / 0.1
        return (cross_entropy(s, target) + cross_entropy(s.T, target.T)) / 2

    same_gradients(lambda a, b: MixCo(0.1)(a, b, perm=perm, mixing=mixing), written, make.z(4, 5), make.z(4, 5))


@pytest.mark.parametrize("mean_kl", [False, True])
def test_modx(make, same_gradients, mean_kl):
    a, b, old_a = make.z(8, 5), make.z(8, 5), make.z(8, 3)
    old_b = old_a + 0.8 * make.z(8, 3)
    loss = ModX(0.2, alpha=3.0, mean_kl=mean_kl)

    def written(a, b):
        new, old = unit(a) @ unit(b).T, unit(old_a) @ unit(old_b).T
        total = 0.0
        for n, o in ((new, old), (new.T, old.T)):
            rows = F.kl_div(n.log_softmax(1), o.softmax(1), reduction="none").sum(1)
            total = total + (rows * (o.argmax(1) == torch.arange(8))).sum() / 2
        return InfoNCE(0.2)(a, b) + 3.0 * (total / 8 if mean_kl else total)

    same_gradients(lambda a, b: loss(a, b, old_a, old_b), written, a, b)
    assert 0 < loss.monitors["kept"] < 1  # the filter has something to do here


def test_gram_equals_the_determinant(make, same_gradients):
    def written(*views):
        t, *rest = [unit(v) for v in views]
        n = len(t)
        rows = []
        for i in range(n):
            vectors = torch.stack([t[i].expand(n, -1), *rest], 1)
            rows.append(torch.linalg.det(vectors @ vectors.mT).sqrt())
        v = -torch.stack(rows) / 0.3
        label = torch.arange(n)
        ce = F.cross_entropy(v, label, label_smoothing=0.1) + F.cross_entropy(v.T, label, label_smoothing=0.1)
        return ce / 2

    same_gradients(GRAM(0.3, block=3), written, *(make.z(7, 6) for _ in range(4)), atol=1e-8)


def test_gram_of_two_modalities_is_the_sine(make):
    a, b = make.unit(5, 4), make.unit(5, 4)
    torch.testing.assert_close(gram_volume(a, b), torch.sqrt(1 - (a * b).sum(1) ** 2))
    torch.testing.assert_close(gram_volume(a, -b), gram_volume(a, b))


def test_gram_is_safe_at_volume_zero(make):
    a = make.unit(4, 6).float().requires_grad_()
    value = GRAM(0.1)(a, a.detach().clone(), a.detach().clone())
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(a.grad).all()


def test_symile_equals_the_written_out_products(make, same_gradients):
    views = [make.z(3, 4) for _ in range(4)]

    def written(*views):
        z = [unit(v) for v in views]
        total = 0.0
        for anchor in range(4):
            others = z[:anchor] + z[anchor + 1 :]
            keys, label = [], []
            for place in itertools.product(range(3), repeat=3):
                keys.append(torch.stack([o[p] for o, p in zip(others, place, strict=True)]).prod(0))
                label.append(place)
            logits = z[anchor] @ torch.stack(keys).T * 5
            total = total + F.cross_entropy(logits, torch.tensor([label.index((i, i, i)) for i in range(3)])) / 4
        return total

    same_gradients(Symile(0.2, negatives="n_squared", chunk=4), written, *views)


def test_symile_with_permuted_negatives(make, same_gradients):
    x, y, z = make.z(5, 4), make.z(5, 4), make.z(5, 4)

    def written(*views):
        generator = torch.Generator().manual_seed(2)
        v = [unit(w) for w in views]
        total = 0.0
        for anchor in range(3):
            others = v[:anchor] + v[anchor + 1 :]
            keys = torch.stack([o[torch.randperm(5, generator=generator)] for o in others]).prod(0)
            logits = v[anchor] @ keys.T
            true = (v[0] * v[1] * v[2]).sum(1)
            logits = torch.where(torch.eye(5, dtype=torch.bool), true, logits) / 0.2
            total = total + F.cross_entropy(logits, torch.arange(5)) / 3
        return total

    def call(*views):
        return Symile(0.2, generator=torch.Generator().manual_seed(2))(*views)

    same_gradients(call, written, x, y, z)


def test_symile_learns_xor_where_pairs_show_nothing():
    """c = a xor b: retrieval of c from (a, b). Pairwise CLIP scores stay at chance (two bits, one half)."""
    generator = torch.Generator().manual_seed(0)

    def sample(n):
        a, b = (torch.randint(2, (n,), generator=generator) for _ in range(2))
        return a, b, a ^ b

    def accuracy(kind):
        torch.manual_seed(0)
        tables = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(2, 8)) for _ in range(3)])
        loss = Symile(0.3) if kind == "symile" else InfoNCE(0.3)
        optimizer = torch.optim.Adam([*tables, *loss.parameters()], 0.1)
        for _ in range(50):
            a, b, c = (t[i] for t, i in zip(tables, sample(64), strict=True))
            value = loss(a, b, c) if kind == "symile" else loss(a, b) + loss(b, c) + loss(a, c)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        a, b, c = sample(400)
        x, y, z = (unit(t.detach()) for t in tables)
        score = (x[a] * y[b]) @ z.T if kind == "symile" else (x[a] + y[b]) @ z.T
        return (score.argmax(1) == c).float().mean().item()

    assert accuracy("symile") > 0.95
    assert 0.25 < accuracy("clip") < 0.75


def test_symile_learns_xor_from_samples_that_lack_modalities():
    """Each modality is missing in a fifth of the samples; what is complete is then told as in training on all of it."""
    generator = torch.Generator().manual_seed(0)

    def sample(n, missing):
        a, b = (torch.randint(2, (n,), generator=generator) for _ in range(2))
        present = [torch.rand(n, generator=generator) >= missing for _ in range(3)]
        values = [torch.where(p, v.float(), torch.nan)[:, None] for v, p in zip((a, b, a ^ b), present, strict=True)]
        return values, present

    torch.manual_seed(0)
    encoders = torch.nn.ModuleList(MissingIndicator(torch.nn.Linear(2, 16), placeholder=0.5) for _ in range(3))
    loss = Symile(0.3)
    optimizer = torch.optim.Adam([*encoders.parameters(), *loss.parameters()], 0.05)
    for _ in range(150):
        values, present = sample(128, missing=0.2)
        optimizer.zero_grad()
        loss(*(e(v, p) for e, v, p in zip(encoders, values, present, strict=True))).backward()
        optimizer.step()
    (a, b, c), _ = sample(400, missing=0.0)
    candidates = unit(encoders[0](torch.tensor([[0.0], [1.0]])))
    score = SCORES["multilinear"]
    keys = score.keys(unit(encoders[1](b)), unit(encoders[2](c)))
    assert ((keys[0] @ candidates.T).argmax(1) == a[:, 0].long()).float().mean() > 0.95


def test_a_missing_input_is_seen_as_missing_and_nothing_else():
    layer = MissingIndicator(torch.nn.Identity(), "learn", features=3)
    with torch.no_grad():
        layer.placeholder.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.randn(2, 4, 3)
    x[1] = torch.nan
    out = layer(x, torch.tensor([True, False]))
    torch.testing.assert_close(out[0], torch.cat([x[0], torch.zeros(4, 1)], 1))
    torch.testing.assert_close(out[1], torch.tensor([1.0, 2.0, 3.0, 1.0]).expand(4, 4))
    out.sum().backward()
    assert torch.equal(layer.placeholder.grad, torch.full((3,), 4.0))


def test_cua_is_the_sum_of_its_parts(make):
    a, b = make.z(6, 4), make.z(6, 4)
    wanted = InfoNCE(0.05)(a, b) + 0.5 * Alignment()(a, b) + 2 * (Uniformity()(a) + Uniformity()(b)) / 2
    torch.testing.assert_close(CUA(0.05, align=0.5, uniform=2.0, cross=3.0)(a, b), wanted + 3 * CrossUniformity()(a, b))


def test_cua_closes_the_gap_between_modalities(make):
    """From two distant caps, CUA brings the centroids closer than CLIP does, at equal retrieval."""
    start = make.unit(32, 16), make.unit(32, 16)
    offset = 3 * make.unit(1, 16)
    found = {}
    for name, loss in (("clip", InfoNCE(0.05)), ("cua", CUA(0.05))):
        a, b = ((z + s * offset).clone().requires_grad_() for z, s in zip(start, (1, -1), strict=True))
        optimizer = torch.optim.Adam([a, b], 0.05)
        for _ in range(40):
            optimizer.zero_grad()
            loss(a, b).backward()
            optimizer.step()
        x, y = unit(a.detach()), unit(b.detach())
        found[name] = ((x.mean(0) - y.mean(0)).norm().item(), ((x @ y.T).argmax(1) == torch.arange(32)).double().mean())
    assert found["cua"][0] < found["clip"][0] / 2
    assert found["cua"][1] >= found["clip"][1] - 0.05


def test_sepclr(make, same_gradients):
    target = torch.tensor([1, 1, 1, 0, 0], dtype=torch.bool)

    def kernel(x):
        return torch.exp(-torch.cdist(x, x).square())

    def log_mean(x):
        return torch.log(torch.exp(-((x[:, None] - x).square().sum(-1)))[~torch.eye(5, dtype=torch.bool)].mean())

    def written(c1, c2, s1, s2):
        views = [(unit(c), s, s * target[:, None]) for c, s in ((c1, s1), (c2, s2))]
        total = (views[0][0] - views[1][0]).square().sum(1).mean()
        total = total + 3 * (s1 - s2).square().sum(1)[target].mean()
        for c, s, masked in views:
            joint = torch.exp(-((c[:, None] - c).square().sum(-1)) - (masked[:, None] - masked).square().sum(-1))
            total = total + log_mean(c) + 3 * log_mean(masked)
            total = total + 5 * s.square().sum(1)[~target].mean() + 5 * joint.mean(1).log().mean()
        return total

    loss = SepCLR(salient=3.0)
    codes = make.z(5, 4), make.z(5, 4), make.z(5, 2) / 2, make.z(5, 2) / 2
    same_gradients(lambda *c: loss(*c, target=target), written, *codes)
    assert kernel(codes[0]).mean() <= 1
    torch.testing.assert_close(joint_entropy(codes[0], codes[2][:, :0]), kernel(codes[0]).mean(1).log().mean())
