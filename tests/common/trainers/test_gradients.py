"""Cached gradients equal the full batch's; harmonised gradients equal their definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from counterpoint.common.losses import InfoNCE, LogitScale
from counterpoint.common.trainers.gradients import cached_gradients
from counterpoint.common.trainers.harmonize import Harmonizer, agreement, realign


class Towers(nn.Module):
    def __init__(self, dropout: float = 0.0, norm: bool = False):
        super().__init__()
        middle = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.a = nn.Sequential(nn.Linear(5, 16), middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 4))
        self.b = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 4))
        self.loss = InfoNCE(LogitScale(0.2))

    def embed(self, batch):
        return {"a": self.a(batch["x"]), "b": self.b(batch["y"])}

    def losses(self, batch, embeddings):
        return {"infonce": self.loss(embeddings["a"], embeddings["b"]), "decay": (embeddings["a"] ** 2).mean()}


def batch_of(n: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {k: torch.randn(n, 5, generator=generator, dtype=torch.float64) for k in "xy"}


def grads(module):
    return {n: p.grad.clone() for n, p in module.named_parameters()}


@pytest.mark.parametrize("micro", [1, 3, 4, 10])
def test_cached_gradients_equal_the_full_batch(micro):
    torch.manual_seed(0)
    towers, batch = Towers().double(), batch_of(10)
    weights = {"decay": 0.3}
    terms = towers.losses(batch, towers.embed(batch))
    (terms["infonce"] + 0.3 * terms["decay"]).backward()
    expected = grads(towers)
    towers.zero_grad()
    cached, embeddings = cached_gradients(towers, towers.embed, towers.losses, batch, micro, weights)
    torch.testing.assert_close(grads(towers), expected, rtol=1e-10, atol=1e-12)
    assert float(cached["infonce"]) == pytest.approx(float(terms["infonce"].detach()), abs=1e-12)
    assert embeddings["a"].shape == (10, 4)
    assert expected["loss.logit_scale.log_scale"].abs() > 0


def test_the_second_pass_replays_the_dropout_of_the_first():
    torch.manual_seed(0)
    towers, batch = Towers(dropout=0.5).double(), batch_of(8)
    # The full batch with exactly the masks that micro-batches of 3 draw, in one graph.
    torch.manual_seed(7)
    parts = [towers.embed({k: v[i : i + 3] for k, v in batch.items()}) for i in (0, 3, 6)]
    terms = towers.losses(batch, {k: torch.cat([p[k] for p in parts]) for k in "ab"})
    after = torch.rand(1)
    sum(terms.values()).backward()
    expected = grads(towers)
    towers.zero_grad()
    torch.manual_seed(7)
    cached_gradients(towers, towers.embed, towers.losses, batch, 3)
    torch.testing.assert_close(grads(towers), expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(torch.rand(1), after)  # and leaves the generator where one pass leaves it


def test_running_statistics_move_once_per_micro_batch():
    torch.manual_seed(0)
    towers, batch = Towers(norm=True).double(), batch_of(8)
    cached_gradients(towers, towers.embed, towers.losses, batch, 4)
    norm = towers.a[1]
    assert int(norm.num_batches_tracked) == 2
    reference = nn.BatchNorm1d(16).double()
    for part in batch["x"].split(4):
        reference(towers.a[0](part))
    torch.testing.assert_close(norm.running_mean, reference.running_mean)


def test_an_embedding_that_is_not_per_sample_is_refused():
    towers = Towers().double()
    with pytest.raises(ValueError, match="'a' has 1 rows for 4 samples"):
        cached_gradients(towers, lambda b: {"a": towers.a(b["x"]).mean(0, keepdim=True)}, towers.losses, batch_of(8), 4)


vectors = st.lists(st.integers(-3000, 3000).map(lambda v: v / 1000), min_size=3, max_size=3)


@settings(max_examples=60)
@given(vectors, vectors)
def test_realigned_gradients_do_not_conflict(x, y):
    a, b = torch.tensor([x], dtype=torch.float64), torch.tensor([y], dtype=torch.float64)
    new_a, new_b = realign([a, b])
    if (a * b).sum() >= 0 or a.norm() * b.norm() == 0:
        assert torch.equal(new_a, a)
        assert torch.equal(new_b, b)
    elif a.norm() > 1e-3 and b.norm() > 1e-3:
        assert abs(float((new_a * b).sum())) < 1e-9
        assert abs(float((new_b * a).sum())) < 1e-9


class Shared(nn.Module):
    """One video tower under two losses, as in the paper."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.video = nn.Linear(5, 4, bias=False)

    def embed(self, batch):
        return {"video": self.video(batch["x"])}

    def losses(self, batch, e):
        return {
            "audio": (e["video"] * batch["audio"]).sum(),
            "text": (e["video"] * batch["text"]).sum(),
        }


def conflict():
    generator = torch.Generator().manual_seed(3)
    audio = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    sign = torch.tensor([1.0, 1, 1, -1, -1, -1], dtype=torch.float64)[:, None]
    text = sign * audio + 0.1 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return {"x": torch.randn(6, 5, generator=generator, dtype=torch.float64), "audio": audio, "text": text}


def test_harmonised_gradient_equals_the_per_sample_parameter_reference():
    """For a linear tower W x the parameter gradient of sample i is g_i x_i^T: projecting rows g_i is projecting it."""
    module, batch = Shared().double(), conflict()
    cached_gradients(module, module.embed, module.losses, batch, changes=[Harmonizer()])
    reference = torch.zeros(4, 5, dtype=torch.float64)
    for i in range(6):
        one = {k: v[i : i + 1] for k, v in batch.items()}
        terms = module.losses(one, module.embed(one))
        per_term = [torch.autograd.grad(t, module.video.weight, retain_graph=True)[0].flatten() for t in terms.values()]
        reference += sum(realign(per_term)).view(4, 5)
    torch.testing.assert_close(module.video.weight.grad, reference)


def test_curriculum_leaves_out_the_conflicting_samples():
    module, batch = Shared().double(), conflict()
    harmonizer = Harmonizer("video", gamma=0.0)
    cached_gradients(module, module.embed, module.losses, batch, 2, changes=[harmonizer])
    kept = {k: v[:3] for k, v in batch.items()}
    expected = torch.autograd.grad(sum(module.losses(kept, module.embed(kept)).values()), module.video.weight)[0]
    torch.testing.assert_close(module.video.weight.grad, expected)
    assert harmonizer.kept == 0.5
    assert (harmonizer.cosine[:3] > 0.9).all()
    assert (harmonizer.cosine[3:] < -0.9).all()


def test_shuffled_texts_are_found_by_their_gradients():
    """30 % of the texts belong to other samples: their gradients agree less (the card's reduced check)."""
    torch.manual_seed(0)
    n = 200
    latent = torch.randn(n, 8)
    views = {k: normalize(latent + 0.3 * torch.randn(n, 8), dim=-1) for k in ("video", "audio", "text")}
    wrong = torch.rand(n) < 0.3
    views["text"][wrong] = views["text"][wrong][torch.randperm(int(wrong.sum()))]
    video = views["video"].clone().requires_grad_()
    loss = InfoNCE(0.2)
    cosine = agreement([torch.autograd.grad(loss(video, views[k]), video)[0] for k in ("audio", "text")])
    auroc = (cosine[~wrong][:, None] > cosine[wrong][None]).float().mean()
    assert auroc > 0.7
