"""Objectives on tokens and on maps against their equations written out densely in float64."""

import itertools
import math

import torch
import torch.nn.functional as F

from counterpoint.common.losses import (
    HBI,
    NortonParagraph,
    PixelPropagation,
    PixPro,
    SlotCon,
    banzhaf_interaction,
    bucket_transport,
    coalition_value,
    soft_max_similarity,
)


def unit(z):
    return F.normalize(z, dim=-1)


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
