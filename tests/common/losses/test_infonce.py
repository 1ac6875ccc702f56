"""InfoNCE: official numbers, the dense equation with each of its options, and invariances."""

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.kernels import Gibbs
from counterpoint.common.losses import FeatureQueue, InfoNCE, LogitScale, MultiViewNTXent, NTXent


def test_clip_equals_the_official_numbers(oracle):
    oracle.check("clip", InfoNCE(temperature=0.1))


def test_distillation_targets_equal_the_official_numbers(oracle):
    image, text = (F.normalize(oracle.inputs[k], dim=1) for k in "zx")

    def distill(x, y):  # the fixture holds the image -> text half of the term
        return InfoNCE(temperature=0.1, symmetric=False)(x, y, targets=Gibbs(image, text, scale=20.0))

    oracle.check("clip_distill", distill)


@pytest.mark.parametrize("average", [False, True])
def test_multi_view_ntxent_equals_the_official_numbers(oracle, average):
    name = "ntxent_avg" if average else "ntxent_pwe"
    oracle.check(name, MultiViewNTXent(temperature=0.5, average=average), "xyz")


def test_ntxent_of_the_pairs_equals_the_official_numbers(oracle):
    loss = NTXent(0.5)
    oracle.check("ntxent_pwe", lambda x, y, z: (loss(x, y) + loss(x, z) + loss(y, z)) / 3, "xyz")


def dense(a, b, t, group=None, smoothing=0.0, extra=None, extra_group=None):
    """One direction of the equation, with everything written out."""
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    logits = a @ b.T / t
    if extra is not None:
        logits = torch.cat([logits, a @ F.normalize(extra, dim=1).T / t], 1)
    keep = torch.ones_like(logits, dtype=torch.bool)
    if group is not None:
        columns = group if extra is None else torch.cat([group, extra_group])
        keep = group[:, None] != columns
        keep[torch.arange(len(a)), torch.arange(len(a))] = True
    log_p = logits - torch.logsumexp(logits.masked_fill(~keep, -torch.inf), 1, keepdim=True)
    target = smoothing * keep.double() / keep.sum(1, keepdim=True)
    target[:, : len(a)] += (1 - smoothing) * torch.eye(len(a), dtype=torch.float64)
    return -(target * log_p.masked_fill(~keep, 0.0)).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("queued", [False, True])
def test_every_option_equals_the_written_out_equation(make, same_gradients, smoothing, grouped, queued):
    a, b, past_a, past_b = make.z(7, 5), make.z(7, 5), make.z(4, 5), make.z(4, 5)
    group = torch.tensor([0, 0, 1, 2, 2, 2, 3]) if grouped else None
    ids = torch.tensor([2, 9, 9, -1])
    queues = None
    if queued:
        queues = FeatureQueue(6, 5).double(), FeatureQueue(6, 5).double()
        queues[0].push(past_a, ids)
        queues[1].push(past_b, ids)
    loss = InfoNCE(temperature=0.2, label_smoothing=smoothing)

    def written(a, b):
        extra = (past_a, past_b) if queued else (None, None)
        ab = dense(a, b, 0.2, group, smoothing, extra[1], ids)
        return (ab + dense(b, a, 0.2, group, smoothing, extra[0], ids)) / 2

    same_gradients(lambda a, b: loss(a, b, group=group, queue=queues), written, a, b)


def test_one_direction_takes_further_columns(make, same_gradients):
    a, b = make.z(4, 5), make.z(9, 5)
    loss = InfoNCE(temperature=0.3, symmetric=False)
    same_gradients(loss, lambda a, b: dense(a, b[:4], 0.3, extra=b[4:]), a, b)
    with pytest.raises(ValueError, match="paired rows"):
        InfoNCE()(a, b)


def test_unique_groups_change_nothing(make, same_gradients):
    a, b, ids = make.z(6, 4), make.z(6, 4), torch.arange(6) + 100
    for loss in (InfoNCE(0.1), NTXent(0.1)):
        same_gradients(loss, lambda a, b, loss=loss: loss(a, b, group=ids), a, b)


def test_ntxent_equals_the_written_out_equation(make, same_gradients):
    group = torch.tensor([0, 0, 1, 2, 2, 3])

    def written(a, b, group=None):
        z = F.normalize(torch.cat([a, b]), dim=1)
        ids = torch.arange(6).repeat(2) if group is None else group.repeat(2)
        partner = (torch.arange(12) + 6) % 12
        drop = (ids[:, None] == ids) if group is not None else torch.eye(12, dtype=torch.bool)
        drop[torch.arange(12), partner] = False
        logits = (z @ z.T / 0.5).masked_fill(drop, -torch.inf)
        return F.cross_entropy(logits, partner)

    a, b = make.z(6, 4), make.z(6, 4)
    same_gradients(NTXent(0.5), written, a, b)
    same_gradients(lambda a, b: NTXent(0.5)(a, b, group=group), lambda a, b: written(a, b, group), a, b)


@pytest.mark.parametrize("loss", [InfoNCE(0.1), NTXent(0.1)])
def test_one_pair_costs_nothing_and_an_empty_batch_too(make, loss):
    for rows, group in ((1, None), (1, torch.tensor([5])), (0, None)):
        a, b = make.z(rows, 4).requires_grad_(), make.z(rows, 4).requires_grad_()
        value = loss(a, b, group=group)
        value.backward()
        assert value.item() == pytest.approx(0.0, abs=1e-12)
        assert torch.isfinite(a.grad).all()
        assert a.grad.abs().sum() < 1e-12


def test_all_in_one_group_leaves_no_negative(make):
    a, b = make.z(5, 4).requires_grad_(), make.z(5, 4)
    value = InfoNCE(0.1)(a, b, group=torch.zeros(5, dtype=torch.long))
    value.backward()
    assert value.item() == 0
    assert (a.grad == 0).all()


def test_weights_multiply_the_rows(make):
    a, b, w = make.z(5, 4), make.z(5, 4), torch.tensor([1.0, 0, 2, 0, 0], dtype=torch.float64)
    loss = InfoNCE(0.1)
    torch.testing.assert_close(loss(a, b, weight=w), (loss.row_losses(a, b) * w).mean())


def test_learnt_scale_is_clamped_like_clips_and_gets_its_gradient(make):
    scale = LogitScale(0.02).double()
    loss = InfoNCE(scale)
    with torch.no_grad():
        scale.log_scale.fill_(6.0)
    a = make.z(6, 4)
    value = loss(a, a + 0.5 * make.z(6, 4))
    value.backward()
    assert scale().item() == pytest.approx(100)
    assert scale.log_scale.grad.abs() > 0  # at the bound the gradient still flows
    log_scale = torch.tensor(2.0, dtype=torch.float64)

    def value_at(x):
        scale.log_scale.data.fill_(x)
        return loss(a, a.flip(1))

    value_at(log_scale).backward()
    scale.log_scale.grad = None
    value_at(log_scale).backward()
    slope = (value_at(log_scale + 1e-6) - value_at(log_scale - 1e-6)) / 2e-6
    torch.testing.assert_close(scale.log_scale.grad, slope.detach(), rtol=1e-6, atol=1e-8)


def test_fixed_scale_is_exact_and_no_parameter():
    assert LogitScale(0.1, learnable=False)() == 10.0
    assert not list(InfoNCE(0.1).parameters())
    with pytest.raises(ValueError, match="min_scale"):
        LogitScale(2.0)


def test_queue_is_a_ring_in_the_checkpoint(make):
    queue = FeatureQueue(5, 2)
    for step in range(4):
        queue.push(torch.full((3, 2), float(step)), torch.full((3,), step))
    assert sorted(queue.ids.tolist()) == [2, 2, 3, 3, 3]
    again = FeatureQueue(5, 2)
    again.load_state_dict(queue.state_dict())
    queue.push(torch.full((1, 2), 9.0))
    again.push(torch.full((1, 2), 9.0))
    assert again.keys.equal(queue.keys)
    big = FeatureQueue(2, 1)
    big.push(torch.arange(5.0)[:, None])
    assert sorted(big.keys.flatten().tolist()) == [3.0, 4.0]


def test_effective_negatives_lie_between_one_and_all(make):
    z = make.z(8, 4)
    near = InfoNCE(0.02).effective_negatives(z, z)
    far = InfoNCE(1e6).effective_negatives(z, z)
    assert (near < 2).all()
    torch.testing.assert_close(far, torch.full((8,), 8.0, dtype=torch.float64))
