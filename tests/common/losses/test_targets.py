"""Soft targets, joint scores, token and map objectives against their equations written out densely in float64."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.kernels import Weighted
from counterpoint.common.losses import (
    CUA,
    CWCL,
    GRAM,
    HBI,
    Alignment,
    CrossUniformity,
    InfoNCE,
    MixCo,
    ModX,
    NortonParagraph,
    PixelPropagation,
    PixPro,
    SepCLR,
    SlotCon,
    SoftClip,
    SoftContrastive,
    Symile,
    Uniformity,
    banzhaf_interaction,
    bucket_transport,
    coalition_value,
    gram_volume,
    joint_entropy,
    soft_max_similarity,
)


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
        c1, c2 = unit(c1), unit(c2)
        masked = s1 * target[:, None]
        joint = torch.exp(-((c1[:, None] - c1).square().sum(-1)) - (masked[:, None] - masked).square().sum(-1))
        return (
            (c1 - c2).square().sum(1).mean()
            + 2 * log_mean(c1)
            + (s1 - s2).square().sum(1)[target].mean()
            + 2 * log_mean(masked)
            + 10 * s1.square().sum(1)[~target].mean()
            + 10 * joint.mean(1).log().mean()
        )

    loss = SepCLR()
    codes = make.z(5, 4), make.z(5, 4), make.z(5, 2) / 2, make.z(5, 2) / 2
    same_gradients(lambda *c: loss(*c, target=target), written, *codes)
    assert kernel(codes[0]).mean() <= 1
    torch.testing.assert_close(joint_entropy(codes[0], codes[2][:, :0]), kernel(codes[0]).mean(1).log().mean())


def test_norton_paragraph(make, same_gradients):
    x, y = make.z(3, 4, 6), make.z(3, 4, 6)

    def written(x, y):
        s = torch.einsum("itd,jud->ijtu", unit(x), unit(y))
        low, high = s.min().detach(), s.max().detach()
        s = (s - low) / (high - low)
        matching = torch.stack([s[i, i].diagonal() for i in range(3)]).flatten().detach()
        p = matching.sort().values[math.floor(0.3 * (len(matching) - 1))]
        score = torch.zeros(3, 3, dtype=s.dtype)
        for i, j in itertools.product(range(3), range(3)):
            full = torch.full((5, 5), p.item(), dtype=s.dtype)
            full[:4, :4] = s[i, j].detach()
            q = torch.exp(full / 0.1)
            for _ in range(50):
                q = q / q.sum(1, keepdim=True) / 5
                q = q / q.sum(0, keepdim=True) / 5
            q = q[:4, :4] / q[:4, :4].sum() * 4
            score = score.index_put((torch.tensor(i), torch.tensor(j)), (q * s[i, j]).sum())
        label = torch.arange(3)
        return (F.cross_entropy(score / 0.5, label) + F.cross_entropy(score.T / 0.5, label)) / 2

    # The range's ends are taken as constants in both.
    same_gradients(NortonParagraph(0.5, block=2), written, x, y, atol=1e-6)


def test_the_bucket_takes_what_does_not_match(make):
    s = torch.eye(4, dtype=torch.float64)
    s[3, 3] = 0.0  # this clip has no caption
    plan = bucket_transport(s, 0.5, epsilon=0.05)
    assert plan[:3].sum() > 3.9
    torch.testing.assert_close(plan.sum(), torch.tensor(4.0, dtype=torch.float64))


def test_soft_max_similarity_tends_to_the_maximum(make):
    a, b = make.unit(3, 5), make.unit(4, 5)
    s = a @ b.T
    hard = (s.amax(1).mean() + s.amax(0).mean()) / 2
    torch.testing.assert_close(soft_max_similarity(a, b, alpha=1e-4), hard, rtol=0, atol=1e-3)
    assert soft_max_similarity(a, b, alpha=1.0) > hard


def test_banzhaf_interaction_by_definition(make):
    s = make.z(2, 2, 3)
    wanted = torch.zeros(2, 2, 3, dtype=s.dtype)
    for t, u in itertools.product(range(2), range(3)):
        others = [k for k in range(5) if k not in (t, 2 + u)]
        for size in range(4):
            for coalition in itertools.combinations(others, size):
                for pair, sign in (((t, 2 + u), 1), ((t,), -1), ((2 + u,), -1), ((), 1)):
                    present = torch.zeros(1, 5, dtype=torch.bool)
                    present[0, list(coalition + pair)] = True
                    wanted[:, t, u] += sign * coalition_value(s, present)[0] / 8
    torch.testing.assert_close(banzhaf_interaction(s), wanted)


def test_sampled_banzhaf_is_unbiased(make):
    s, generator = make.z(3, 4), torch.Generator().manual_seed(0)
    exact = banzhaf_interaction(s)
    draws = torch.stack([banzhaf_interaction(s, samples=50, generator=generator) for _ in range(200)])
    error = draws.std(0) / math.sqrt(200)
    assert ((draws.mean(0) - exact).abs() < 4.5 * error).all()
    assert banzhaf_interaction(s, samples=20000, generator=generator).sub(exact).abs().max() < 0.1


def test_hbi(make, same_gradients):
    w_x, w_y = torch.softmax(make.z(4, 3), 1), torch.softmax(make.z(4, 2), 1)

    def written(x, y, student):
        s = torch.einsum("itd,jud->ijtu", unit(x), unit(y))
        score = ((s.amax(3) * w_x[:, None]).sum(2) + (s.amax(2) * w_y[None]).sum(2)) / 2 / 0.2
        label = torch.arange(4)
        teacher = banzhaf_interaction((unit(x) @ unit(y).mT).detach())
        kl = sum(F.kl_div(student.log_softmax(d), teacher.softmax(d), reduction="none").sum(d).mean() for d in (1, 2))
        return (F.cross_entropy(score, label) + F.cross_entropy(score.T, label)) / 2 + 0.7 / 2 * kl

    loss = HBI(0.2, weight=0.7, block=3)
    same_gradients(
        lambda x, y, m: loss(x, y, x_weight=w_x, y_weight=w_y, student=m),
        written,
        make.z(4, 3, 5),
        make.z(4, 2, 5),
        make.z(4, 3, 2),
    )


def test_pixpro(make, same_gradients):
    maps = [make.z(2, 5, 3, 3) for _ in range(4)]
    centres = [torch.rand(2, 3, 3, 2, dtype=torch.float64, generator=make.generator) for _ in range(2)]
    cells = [torch.tensor([0.3, 0.5], dtype=torch.float64), torch.tensor([0.4, 0.2], dtype=torch.float64)]

    def written(y1, y2):
        total = 0.0
        for y, x, here, there in ((y1, maps[3], 0, 1), (y2, maps[2], 1, 0)):
            for n in range(2):
                agreement, near = 0.0, 0
                for i, j in itertools.product(itertools.product(range(3), range(3)), repeat=2):
                    distance = (centres[here][n][i] - centres[there][n][j]).norm() / max(cells[0][n], cells[1][n])
                    if distance < 0.7:
                        near += 1
                        agreement = agreement + F.cosine_similarity(y[n, :, *i], x[n, :, *j], dim=0)
                total = total - 2 * agreement / (near + 1e-6) / 2
        return total

    same_gradients(lambda y1, y2: PixPro()(y1, y2, maps[2], maps[3], *centres, *cells), written, *maps[:2])


def test_pixel_propagation(make):
    layer, x = PixelPropagation(4, power=2.0).double(), make.z(1, 4, 2, 3)
    g, flat = layer.transform(x)[0].flatten(1), x[0].flatten(1)
    wanted = torch.stack(
        [
            sum(F.cosine_similarity(flat[:, i], flat[:, j], dim=0).clamp_min(0) ** 2 * g[:, j] for j in range(6))
            for i in range(6)
        ],
        1,
    )
    torch.testing.assert_close(layer(x)[0].flatten(1), wanted)


def test_slotcon(make, same_gradients):
    loss = SlotCon(5, 4).double().eval()
    loss.centre.copy_(0.1 * make.z(4))
    teachers = [make.z(2, 6, 5) for _ in range(2)]

    def written(s1, s2):
        c, total = unit(loss.prototypes), 0.0
        for s, t in ((unit(s1), unit(teachers[1])), (unit(s2), unit(teachers[0]))):
            soft = torch.softmax((t @ c.T - loss.centre) / 0.07, -1).detach()
            total = total - 0.25 * (soft * (s @ c.T / 0.1).log_softmax(-1)).sum(-1).mean()
            of_s = torch.softmax(s @ c.T / 0.07, -1)
            q, k, keep = unit(of_s.mT @ s), unit(soft.mT @ t), []
            for n in range(2):
                both = set(of_s[n].argmax(-1).tolist()) & set(soft[n].argmax(-1).tolist())
                keep += [(n, slot) for slot in sorted(both)]
            q, k = (torch.stack([m[place] for place in keep]) for m in (q, k))
            total = total + 0.25 * 0.4 * F.cross_entropy(q @ k.T / 0.2, torch.arange(len(keep)))
        return total

    same_gradients(lambda s1, s2: loss(s1, s2, *teachers), written, make.z(2, 6, 5), make.z(2, 6, 5))


def test_slotcon_centre_follows_the_teacher(make):
    loss, t = SlotCon(5, 4).double(), make.z(2, 6, 5)
    loss(t, t, t, t)
    mean = (unit(t) @ unit(loss.prototypes).T).flatten(0, 1).mean(0)
    torch.testing.assert_close(loss.centre, 0.1 * mean.detach())
