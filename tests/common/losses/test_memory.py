"""Objectives that remember: queues, momentum teachers, per-sample states."""

import math
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.losses import (
    AMCL,
    TCL,
    ALBEFContrast,
    AMCLMoCo,
    CoCa,
    FastCLIP,
    InfoNCE,
    ISogCLR,
    LocalMI,
    MoCHi,
    MoCo,
    SogCLR,
    SwAV,
    hard_negatives,
    masked_lm_loss,
    matching_loss,
    pool_patches,
)


def unit(z):
    return F.normalize(z, dim=-1)


def test_moco(make, same_gradients):
    q, k, past, index = make.z(4, 6), make.z(4, 6), make.z(5, 6), torch.arange(4)
    loss = MoCo(6, size=8, temperature=0.2).double().eval()
    loss.queue.push(unit(past), torch.tensor([9, 1, -1, 3, 9]))

    def written(q, keep=None):
        logits = unit(q) @ unit(past).T / 0.2
        if keep is not None:
            logits = torch.where(keep, logits, -torch.inf)
        positive = (unit(q) * unit(k)).sum(1, keepdim=True) / 0.2
        return F.cross_entropy(torch.cat([positive, logits], 1), torch.zeros(4, dtype=torch.long))

    keep = index[:, None] != torch.tensor([9, 1, -1, 3, 9])
    same_gradients(lambda q: loss(q, k), written, q)
    same_gradients(lambda q: loss(q, k, index=index), lambda q: written(q, keep), q)


def test_moco_keys_belong_to_the_momentum_encoder(make):
    loss, k = MoCo(4, 6).double(), make.z(5, 4).requires_grad_()
    loss.queue.push(make.unit(6, 4))
    loss(make.z(5, 4).requires_grad_(), k).backward()
    assert k.grad is None


def test_moco_pushes_in_training_and_backward_survives_the_push(make):
    loss = MoCo(6, size=8, temperature=0.2).double()
    assert loss.eval()(make.z(4, 6), make.z(4, 6), index=torch.arange(4)) == 0  # nothing to contrast with yet
    loss.train()
    q = make.z(4, 6).requires_grad_()
    loss(q, make.z(4, 6))
    value = loss(q, make.z(4, 6))
    assert loss.queue.filled == 8
    loss.queue.push(make.z(4, 6))
    value.backward()  # the keys it saw were saved
    loss.eval()
    loss(q, make.z(4, 6))
    assert loss.queue.filled == 8


def test_mochi_adds_its_private_negatives(make, same_gradients):
    q, k, past = make.z(4, 6), make.z(4, 6), unit(make.z(7, 6))
    settings = {"size": 8, "temperature": 0.2, "hardest": 3, "mixed": 5, "mixed_with_query": 2}
    loss = MoCHi(6, **settings, generator=torch.Generator().manual_seed(3)).double().eval()
    loss.queue.push(past)
    synthetic = loss.synthesize(unit(q), None)
    assert synthetic.shape == (4, 7, 6)
    torch.testing.assert_close(synthetic.norm(dim=-1), torch.ones(4, 7, dtype=torch.float64))

    def written(q):
        logits = [
            (unit(q) * unit(k)).sum(1, keepdim=True),
            unit(q) @ past.T,
            torch.einsum("rd,rmd->rm", unit(q), synthetic),
        ]
        return F.cross_entropy(torch.cat(logits, 1) / 0.2, torch.zeros(4, dtype=torch.long))

    def call(q):
        loss.generator.manual_seed(3)
        return loss(q, k)

    same_gradients(call, written, q)


def test_mochi_mixes_only_the_hardest(make):
    """With hardest = 1 and no query mixing every synthetic negative is the hardest queue entry itself."""
    loss = MoCHi(6, size=8, hardest=1, mixed=4, mixed_with_query=0, generator=torch.Generator().manual_seed(0)).double()
    loss.queue.push(unit(make.z(8, 6)))
    q = unit(make.z(3, 6))
    best = loss.queue.keys[(q @ loss.queue.keys.T).argmax(1)]
    torch.testing.assert_close(loss.synthesize(q, None), best[:, None].expand(3, 4, 6))
    # Mixed with the query, the queue's entry keeps at least half of the weight.
    loss.mixed, loss.mixed_with_query = 0, 50
    parts = torch.linalg.lstsq(torch.stack([q, best], -1), loss.synthesize(q, None).mT).solution
    share = parts[:, 0] / parts.sum(1)
    assert (share >= 0).all()
    assert 0.4 < share.max() <= 0.5


def full_objective(a, b, t):
    """The global contrastive objective of a data set that fits one batch: sum of both sides, in units of T."""
    a, b = unit(a), unit(b)
    off = ~torch.eye(len(a), dtype=torch.bool)
    total = 0.0
    for q, k in ((a, b), (b, a)):
        h = torch.cat([q @ k.T, q @ q.T], 1) - (q * k).sum(1, keepdim=True)
        keep = torch.cat([off, off], 1)
        total = total + t * (torch.logsumexp(torch.where(keep, h / t, -torch.inf), 1) - math.log(2 * len(a) - 2)).mean()
    return total


def test_sogclr_with_the_whole_data_set_is_the_objective(make, same_gradients):
    a, b, index = make.z(8, 5), make.z(8, 5), torch.randperm(8, generator=make.generator)
    loss = SogCLR(8, 0.2, gamma=1.0).double()
    same_gradients(lambda a, b: loss(a, b, index=index), lambda a, b: full_objective(a, b, 0.2), a, b)


def test_sogclr_small_batches_have_the_full_gradient_on_average(make):
    """With u at its fixed point the gradients of all batches of 3 out of 6 average to the full batch's; a plain
    mini-batch loss's do not."""
    n, t = 6, 0.3
    a, b = make.z(n, 5), make.z(n, 5)
    loss = SogCLR(n, t, gamma=1.0, bimodal=True).double()
    index = torch.arange(n)

    def gradient(call, rows):
        leaf = a.clone().requires_grad_()
        return torch.autograd.grad(call(leaf[rows], b[rows], rows), leaf)[0]

    exact = gradient(lambda x, y, i: loss(x, y, index=i), index)
    loss.now = 1e-12  # u stays at the whole data set's value
    batches = [torch.tensor(rows) for rows in combinations(range(n), 3)]
    sog = torch.stack([gradient(lambda x, y, i: loss(x, y, index=i), rows) for rows in batches]).mean(0)

    def fresh(x, y, i):
        return SogCLR(n, t, gamma=1.0, bimodal=True).double()(x, y, index=i)

    plain = torch.stack([gradient(fresh, rows) for rows in batches]).mean(0)
    torch.testing.assert_close(sog, exact, rtol=1e-7, atol=1e-9)
    assert (plain - exact).norm() > 0.05 * exact.norm()


def test_sogclr_first_visits_are_per_sample_and_evaluation_leaves_the_state_alone(make):
    loss = SogCLR(10, 0.2).double()
    a, b = make.z(4, 5), make.z(4, 5)
    loss(a, b, index=torch.tensor([0, 1, 2, 3]))
    first = loss.state.log_u.clone()
    loss(a, b, index=torch.tensor([2, 3, 4, 5]))  # half seen, half new
    assert torch.isfinite(loss.state.log_u[:6]).all()
    assert torch.isinf(loss.state.log_u[6:]).all()
    assert not torch.equal(first[2:4], loss.state.log_u[2:4])
    loss.eval()
    before = loss.state.log_u.clone()
    loss(a, b, index=torch.tensor([6, 7, 8, 9]))
    assert torch.equal(before, loss.state.log_u)
    again = SogCLR(10, 0.2).double()
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again.state.log_u, loss.state.log_u)


def test_sogclr_survives_a_tiny_temperature(make):
    loss = SogCLR(4, 0.002, bimodal=True)
    a = make.z(4, 5).float().requires_grad_()
    value = loss(a, make.z(4, 5).float(), index=torch.arange(4))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(a.grad).all()


def test_isogclr_temperatures_settle_where_the_weights_carry_rho_nats(make):
    """log u + rho - E_p[h / T] = rho - KL(p || uniform): each temperature moves until its weights differ from uniform
    by rho nats, so rows with widely spread negatives (frequent concepts among rare ones) end hotter."""
    z, index, rho = make.unit(16, 8), torch.arange(16), 0.3
    b = F.normalize(z + 0.3 * make.unit(16, 8), dim=1)
    loss = ISogCLR(16, 0.2, gamma=1.0, rho=rho, eta=0.05, bounds=(1e-3, 50.0), bimodal=True).double()
    for _ in range(80):
        loss(z, b, index=index)
    s = (z @ b.T)[~torch.eye(16, dtype=torch.bool)].view(16, 15)
    t = loss.state.temperature_a
    p = torch.softmax(s / t[:, None], 1)
    kl = (p * p.log()).sum(1) + math.log(15)
    torch.testing.assert_close(kl, torch.full((16,), rho, dtype=torch.float64), rtol=0, atol=5e-3)
    spread = s.std(1)
    assert t[spread > spread.median()].mean() > t[spread <= spread.median()].mean()


def test_gamma_schedule():
    loss = SogCLR(4, gamma=0.2, decay_epochs=10)
    seen = []
    for epoch in (0, 5, 10, 99):
        loss.set_epoch(epoch)
        seen.append(loss.now)
    assert seen == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_fastclip(make, same_gradients):
    n, t0 = 6, 0.3
    loss = FastCLIP(n, t0, rho=8.0, gamma=0.4).double()
    log_u = make.z(2, n)
    scale = loss.logit_scale.log_scale

    def reset():
        loss.state.log_u_a, loss.state.log_u_b = log_u[0].clone(), log_u[1].clone()

    def written(a, b, log_scale):
        t = torch.exp(-log_scale)
        s = unit(a) @ unit(b).T
        off = ~torch.eye(n, dtype=torch.bool)
        total, logs = 0.0, 0.0
        for row, old in ((s, log_u[0]), (s.T, log_u[1])):
            g = (torch.exp((row - row.diagonal()[:, None]) / t) * off).sum(1) / (n - 1)
            u = (0.6 * old.exp() + 0.4 * g).detach()
            total, logs = total + (g / u).mean(), logs + u.log().mean()
        return t.detach() * total + 8.0 * t + t * logs / 2

    a, b = make.z(n, 5), make.z(n, 5)
    reset()
    same_gradients(
        lambda a, b: (reset(), loss(a, b, index=torch.arange(n)))[1], lambda a, b: written(a, b, scale.detach()), a, b
    )
    reset()
    loss(a, b, index=torch.arange(n)).backward()
    leaf = scale.detach().clone().requires_grad_()
    written(a, b, leaf).backward()
    torch.testing.assert_close(scale.grad, leaf.grad)


@pytest.mark.parametrize("ids", [None, torch.tensor([0, 1, 1, 2])])
def test_albef_contrast(make, same_gradients, ids):
    x, y, mx, my = (make.z(4, 6) for _ in range(4))
    past = unit(make.z(2, 5, 6))
    past_ids = torch.tensor([1, 7, -1, -1, 2])
    loss = ALBEFContrast(6, queue_size=5, temperature=0.2).double().eval()
    loss.image_queue.push(past[0], past_ids)
    loss.text_queue.push(past[1], past_ids)

    def side(q, m, keys):
        logits, teacher = unit(q) @ keys.T / 0.2, torch.softmax(unit(m) @ keys.T / 0.2, 1)
        if ids is None:
            hard = torch.eye(4, 9, dtype=torch.float64)
        else:
            hard = (ids[:, None] == torch.cat([ids, past_ids])).double()
            hard = hard / hard.sum(1, keepdim=True)
        return -((0.4 * teacher + 0.6 * hard) * logits.log_softmax(1)).sum(1).mean()

    def written(x, y):
        images, texts = torch.cat([unit(mx), past[0]]), torch.cat([unit(my), past[1]])
        return (side(x, mx, texts) + side(y, my, images)) / 2

    same_gradients(lambda x, y: loss(x, y, mx, my, alpha=0.4, index=ids), written, x, y)


def test_albef_without_distillation_and_queue_is_infonce(make):
    x, y = make.z(5, 6), make.z(5, 6)
    torch.testing.assert_close(ALBEFContrast(6, 0, 0.1)(x, y, x, y, alpha=0.0), (one_way(x, y) + one_way(y, x)) / 2)


def one_way(q, k):
    return InfoNCE(0.1, symmetric=False)(q, k)


def test_hard_negatives_follow_the_softmax_and_avoid_the_group(make):
    z, group, copies = make.unit(6, 4), torch.tensor([0, 0, 1, 1, 2, 2]), 100
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(6, 6)
    many, groups = z.repeat(copies, 1), group.repeat(copies)
    for _ in range(10):
        drawn = hard_negatives(many, many, scale=3.0, group=groups, generator=generator) % 6
        counts.index_put_((torch.arange(6 * copies) % 6, drawn), torch.ones(()), accumulate=True)
    p = torch.softmax((3 * z @ z.T).masked_fill(group[:, None] == group, -torch.inf), 1)
    assert counts[group[:, None] == group].sum() == 0
    assert (counts / (10 * copies) - p).abs().max() < 0.06  # four standard errors
    alone = hard_negatives(z, z, group=torch.zeros(6, dtype=torch.long), generator=generator)
    assert (alone == -1).all()


def test_matching_and_masked_language_losses(make):
    matched, unmatched = make.z(3), make.z(6)
    logits = torch.stack([torch.zeros(9, dtype=torch.float64), torch.cat([matched, unmatched])], 1)
    labels = torch.tensor([1] * 3 + [0] * 6)
    torch.testing.assert_close(matching_loss(matched, unmatched), F.cross_entropy(logits, labels))
    tokens, label, teacher = make.z(2, 5, 7), torch.randint(7, (2, 5)), make.z(2, 5, 7)
    masked = torch.rand(2, 5) < 0.5
    hard = F.one_hot(label, 7).double()
    target = 0.7 * hard + 0.3 * teacher.softmax(-1)
    wanted = F.cross_entropy(tokens[masked], target[masked])
    torch.testing.assert_close(masked_lm_loss(tokens, label, masked=masked, teacher=teacher, alpha=0.3), wanted)


def test_local_mutual_information(make, same_gradients):
    x, m = make.z(4, 3, 6), make.z(4, 6)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)

    def written(x, m):
        s = torch.exp(torch.einsum("ilk,jk->ilj", unit(x), unit(m)) / 0.3) * mask[..., None]
        terms = []
        for i in range(4):
            negative = sum(s[j, :, i].sum() for j in range(4) if j != i)
            own = [-torch.log(s[i, l, i] / (s[i, l, i] + negative)) for l in range(3) if mask[i, l]]
            terms.append(torch.stack(own).mean())
        return torch.stack(terms).mean()

    same_gradients(lambda m: LocalMI(0.3)(x, m, mask=mask), lambda m: written(x, m), m)
    leaf = x.clone().requires_grad_()
    LocalMI(0.3)(leaf, m.clone().requires_grad_(), mask=mask).backward()
    assert leaf.grad is None  # the momentum encoder's


def test_patches_are_pooled_after_they_are_normalised(make):
    x, m = make.z(3, 16, 6), make.z(3, 6)
    pooled = pool_patches(unit(x))
    torch.testing.assert_close(pooled[:, 1], unit(x)[:, [2, 3, 6, 7]].mean(1))
    wanted = LocalMI(0.3, normalize=False)(pooled, unit(m))
    torch.testing.assert_close(LocalMI(0.3, pool=True)(x, m), wanted)
    with pytest.raises(ValueError, match="square grid, got 5"):
        LocalMI(pool=True)(x[:, :5], m)
    with pytest.raises(ValueError, match="no mask"):
        LocalMI(pool=True)(x, m, mask=torch.ones(3, 16, dtype=torch.bool))


def test_tcl_is_the_mean_of_its_parts(make):
    x, y, mx, my, tokens_x, tokens_y = *(make.z(4, 6) for _ in range(4)), make.z(4, 3, 6), make.z(4, 2, 6)
    loss = TCL(6, queue_size=0, temperature=0.1, pool=False).double()
    value = loss(x, y, mx, my, image_tokens=tokens_x, text_tokens=tokens_y, alpha=0.4)
    cross = ALBEFContrast(6, 0, 0.1)(x, y, mx, my, alpha=0.4)
    local = LocalMI(0.1)(tokens_x, x) + LocalMI(0.1)(tokens_y, y)
    torch.testing.assert_close(value, (2 * cross + one_way(x, mx) + one_way(y, my) + local) / 6)


def test_coca(make):
    x, y, logits, caption = make.z(4, 6), make.z(4, 6), make.z(4, 5, 9), torch.randint(0, 9, (4, 5))
    value = CoCa(0.1)(x, y, logits, caption)
    words = F.cross_entropy(logits.permute(0, 2, 1), caption, ignore_index=0)
    torch.testing.assert_close(value, InfoNCE(0.1)(x, y) + 2 * words)


def multiplicative_sinkhorn(scores, iterations=3):
    """SwAV's assignment as its code writes it: exp, then alternate normalisation, samples last."""
    q = torch.exp(scores / 0.05).T
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


@pytest.mark.parametrize("queued", [False, True])
def test_swav(make, same_gradients, queued):
    crops = [make.z(6, 5) for _ in range(3)]
    loss = SwAV(5, 4, queue_size=8 if queued else 0).double().eval()
    past = unit(make.z(2, 8, 5))
    if queued:
        for queue, keys in zip(loss.queues, past, strict=True):
            queue.push(keys)

    def written(*crops):
        z, c = [unit(v) for v in crops], unit(loss.prototypes)
        total = 0.0
        for place in (0, 1):
            everything = torch.cat([z[place], past[place]]) if queued else z[place]
            q = multiplicative_sinkhorn((everything @ c.T).detach())[:6]
            for v in range(3):
                if v != place:
                    total = total - (q * (z[v] @ c.T / 0.1).log_softmax(1)).sum(1).mean() / 4
        return total

    same_gradients(loss, written, *crops)
    loss.zero_grad()
    loss(*crops).backward()
    ours = loss.prototypes.grad.clone()
    loss.zero_grad()
    written(*crops).backward()
    torch.testing.assert_close(ours, loss.prototypes.grad)


def test_swav_queue_fills_in_training(make):
    loss = SwAV(5, 4, queue_size=8).double()
    loss(make.z(6, 5), make.z(6, 5))
    assert [q.filled for q in loss.queues] == [6, 6]


@pytest.mark.parametrize("hardest", [1, 4])
def test_amcl(make, same_gradients, hardest):
    torch.manual_seed(0)
    loss = AMCL(5, beta=0.01, hardest=hardest, regulariser="omega", bounds=(0.05, 2.0)).double()

    def written(za, zb):
        total = 0.0
        for a, b in zip(unit(za), unit(zb), strict=True):
            z = torch.cat([a, b])
            p, n = loss.phi(z), len(z)
            s, t = z @ z.T, 0.05 + 1.95 * torch.sigmoid(-p @ p.T)
            omega = 2.5 * t.log() + 1 / t
            for i in range(n):
                j = (i + n // 2) % n
                others = [k for k in range(n) if k not in (i, j)]
                hard = sorted(others, key=lambda k: -s[i, k].item())[:hardest]
                negative = sum(s[i, k] / t[i, k] - 0.01 * omega[i, k] for k in hard) / hardest
                total = total + (-s[i, j] / t[i, j] + 0.01 * omega[i, j] + negative) / n
        return total

    same_gradients(loss, written, make.z(2, 4, 5), make.z(2, 4, 5))


def test_amcl_moco_leaves_out_earlier_keys_of_the_same_sample(make):
    torch.manual_seed(0)
    loss = AMCLMoCo(5, 2, 8, hidden=3, hardest=2).double()
    earlier, now = make.z(2, 4, 5), make.z(2, 4, 5)
    loss(earlier, earlier, index=torch.arange(4))
    loss.eval()
    alone = AMCLMoCo(5, 2, 8, hidden=3, hardest=2).double()
    alone.temperature.load_state_dict(loss.temperature.state_dict())
    alone.queue.push(unit(earlier[:, 1:]).transpose(0, 1).flatten(1))
    alone.eval()
    first = slice(0, 1)
    same = loss(now[:, first], now[:, first], index=torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(same, alone(now[:, first], now[:, first]))
    assert abs(same - loss(now[:, first], now[:, first])) > 1e-6
