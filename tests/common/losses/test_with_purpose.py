"""Align With Purpose: the authors' numbers, its limits, what the low-latency property keeps."""

import json
from itertools import groupby, pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from counterpoint.common.losses import CTCWithPurpose, earlier_paths, path_hinge, sampled_paths

HELD = json.loads((Path(__file__).parent / "oracles" / "align_with_purpose.json").read_text())


def utterances(seed=0, batch=3, frames=9, labels=4):
    torch.manual_seed(seed)
    logits = torch.randn(batch, frames, labels, dtype=torch.float64)
    texts = torch.randint(1, labels, (batch, 2))
    return logits, torch.tensor([9, 7, 6]), texts, torch.tensor([2, 2, 1])


def text(path, blank):
    return [label for label, _ in groupby(path) if label != blank]


@pytest.mark.parametrize("name", HELD)
def test_the_hinge_is_that_of_the_authors(name):
    held = HELD[name]
    logits = torch.tensor(held["logits"], dtype=torch.float64, requires_grad=True)
    loss = path_hinge(
        logits.log_softmax(-1), torch.tensor(held["lengths"]), torch.tensor(held["paths"]),
        torch.tensor(held["better"]), held["margin"],
    )  # fmt: skip
    assert loss.item() == pytest.approx(held["loss"], abs=1e-10)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor(held["gradient"], dtype=torch.float64), rtol=1e-9, atol=1e-10)


def test_every_twin_of_the_authors_is_one_of_ours():
    held = HELD["even"]
    paths, lengths = torch.tensor(held["paths"]), torch.tensor(held["lengths"])
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([earlier_paths(paths, lengths, blank=3, generator=generator) for _ in range(300)])
    found = (draws == torch.tensor(held["better"])).all(-1).any(0)
    assert found.all()


def test_earlier_paths_say_the_same_text_within_the_utterance():
    lengths = torch.tensor([9, 7, 6, 1])
    paths = torch.randint(0, 3, (4, 200, 9), generator=torch.Generator().manual_seed(1))
    twins = earlier_paths(paths, lengths, blank=0, generator=torch.Generator().manual_seed(2))
    changed = 0
    for row, end in enumerate(lengths.tolist()):
        for a, b in zip(paths[row].tolist(), twins[row].tolist()):
            assert text(a[:end], 0) == text(b[:end], 0)
            assert a[end:] == b[end:]
            changed += a != b
            may = a[0] == 0 or any(x == y for x, y in pairwise(a[:end]))
            if may:
                assert b[:end] in [a[:t] + a[t + 1 : end] + [0] for t in range(end)]
            else:
                assert a == b
    assert changed > 300


def test_every_frame_that_may_go_is_as_likely():
    path = torch.tensor([0, 0, 1, 1, 2, 2]).expand(1, 4000, 6)  # four may go: frames 0 and 1 give the same twin
    twins = earlier_paths(path, torch.tensor([6]), generator=torch.Generator().manual_seed(0))[0]
    kinds, counts = twins.unique(dim=0, return_counts=True)
    assert kinds.tolist() == [[0, 0, 1, 1, 2, 0], [0, 0, 1, 2, 2, 0], [0, 1, 1, 2, 2, 0]]
    assert (counts / 4000 - torch.tensor([0.25, 0.25, 0.5])).abs().max() < 0.03


def test_weight_zero_is_ctc_and_draws_nothing():
    logits, lengths, texts, sizes = utterances()
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    found = CTCWithPurpose(0.0, generator=generator)(logits, lengths, texts, sizes)
    assert torch.equal(found, F.ctc_loss(logits.log_softmax(-1).transpose(0, 1), texts, lengths, sizes))
    assert torch.equal(generator.get_state(), before)


def test_both_terms_add_up():
    logits, lengths, texts, sizes = utterances()
    loss = CTCWithPurpose(0.7, generator=torch.Generator().manual_seed(0))
    value = loss(logits, lengths, texts, sizes)
    assert loss.monitors["purpose"] > 0
    torch.testing.assert_close(value, loss.monitors["ctc"] + 0.7 * loss.monitors["purpose"])


def test_nothing_is_paid_where_the_better_path_is_likelier_by_the_margin():
    log_probs = torch.tensor([[[0.1, 0.9], [0.1, 0.9]]]).log()
    worse, better = torch.tensor([[[0, 1]]]), torch.tensor([[[1, 1]]])
    gap = 0.5 * torch.tensor(9.0).log().item()  # one of two frames differs
    lengths = torch.tensor([2])
    assert path_hinge(log_probs, lengths, worse, better, gap - 1e-3) == 0
    assert path_hinge(log_probs, lengths, worse, better, gap + 0.5).item() == pytest.approx(0.5, abs=1e-5)
    assert path_hinge(log_probs, lengths, better, worse).item() == pytest.approx(gap, abs=1e-5)
    assert path_hinge(log_probs, lengths, worse, worse, 0.5) == 0, "equal twins never pay the margin"


@pytest.mark.parametrize("margin", [0.0, 0.4])
def test_gradient_by_finite_differences(margin):
    logits, lengths, *_ = utterances()
    paths = sampled_paths(logits, 5, torch.Generator().manual_seed(3))
    twins = earlier_paths(paths, lengths, generator=torch.Generator().manual_seed(4))
    assert path_hinge(logits.log_softmax(-1), lengths, paths, twins, margin) > 0
    assert torch.autograd.gradcheck(
        lambda x: path_hinge(x.log_softmax(-1), lengths, paths, twins, margin), logits.requires_grad_()
    )


def test_frames_behind_the_end_do_not_count():
    logits, lengths, *_ = utterances()
    other = logits.clone()
    for row, end in enumerate(lengths.tolist()):
        other[row, end:] = other[row, end:].flip(-1) * 3
    paths = sampled_paths(logits, 5, torch.Generator().manual_seed(3))
    paths_too = paths.clone()
    for row, end in enumerate(lengths.tolist()):
        paths_too[row, :, end:] = 1
    values = []
    for x, drawn in ((logits, paths), (other, paths_too)):
        twins = earlier_paths(drawn, lengths, generator=torch.Generator().manual_seed(4))
        values.append(path_hinge(x.log_softmax(-1), lengths, drawn, twins, 0.2))
    assert torch.equal(*values)


def test_draws_follow_the_softmax_and_the_generator():
    logits = torch.tensor([[[0.0, 1.0, 2.0]]])
    drawn = sampled_paths(logits, 20000, torch.Generator().manual_seed(0))
    shares = drawn.flatten().bincount(minlength=3) / 20000
    torch.testing.assert_close(shares, logits[0, 0].softmax(-1), atol=0.015, rtol=0)
    assert torch.equal(drawn, sampled_paths(logits, 20000, torch.Generator().manual_seed(0)))


def test_a_property_of_ones_own_and_an_empty_batch():
    logits, lengths, texts, sizes = utterances()
    loss = CTCWithPurpose(1.0, lambda paths, lengths: paths)
    assert loss(logits, lengths, texts, sizes) == loss.monitors["ctc"], "a property that changes nothing costs nothing"
    none = logits[:0]
    assert path_hinge(none, lengths[:0], torch.zeros(0, 5, 9, dtype=torch.long), torch.zeros(0, 5, 9).long()) == 0


def test_emission_moves_forward_under_the_term():
    """Logits that say label 1 late are pulled to earlier frames; CTC alone leaves them where they are."""
    frames, lengths, texts, sizes = 12, torch.tensor([12]), torch.tensor([[1]]), torch.tensor([1])
    means = {}
    for weight in (0.0, 5.0):
        logits = torch.zeros(1, frames, 2, dtype=torch.float64)
        logits[..., 0] = 2.0
        logits[0, 7:10] = torch.tensor([0.0, 2.0], dtype=torch.float64)
        logits.requires_grad_()
        loss = CTCWithPurpose(weight, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam([logits], 0.05)
        for _ in range(150):
            optimizer.zero_grad()
            loss(logits, lengths, texts, sizes).backward()
            optimizer.step()
        said = logits.detach().softmax(-1)[0, :, 1]
        means[weight] = float((said * torch.arange(frames)).sum() / said.sum())
    assert means[5.0] < means[0.0] - 2


def test_mistakes_are_said():
    logits, lengths, texts, sizes = utterances()
    with pytest.raises(ValueError, match="weight -1"):
        CTCWithPurpose(-1)
    with pytest.raises(ValueError, match="between 1 and the 9 frames, got 6 to 10"):
        CTCWithPurpose(1.0)(logits, lengths + torch.tensor([1, 0, 0]), texts, sizes)
    with pytest.raises((ValueError, TypeError), match="lengths"):
        CTCWithPurpose(1.0)(logits, lengths[:2], texts, sizes)
    with pytest.raises((ValueError, TypeError), match="better"):
        CTCWithPurpose(1.0, lambda paths, lengths: paths[..., :-1])(logits, lengths, texts, sizes)
