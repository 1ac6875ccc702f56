"""MCLRec's encoder, contrast and regulariser against the official code's numbers and written-out dense forms."""

import numpy as np
import pytest
import torch
from recsys_formulas import formula, frozen

from counterpoint.recsys.mclrec import ContrastTerms, SeparationRegularizer
from counterpoint.recsys.models.objectives import next_item_loss
from counterpoint.recsys.models.sasrec import NOTHING, SequenceEncoder
from counterpoint.recsys.models.sequences import altered, crop, mask, numbers_for, reorder

HELD = frozen("mclrec")
SIZE = HELD["config"]
PARTS = {
    "multi_head_attention.query": "query", "multi_head_attention.key": "key", "multi_head_attention.value": "value",
    "multi_head_attention.dense": "out", "multi_head_attention.LayerNorm": "attention_norm",
    "feed_forward.dense_1": "wide", "feed_forward.dense_2": "narrow", "feed_forward.LayerNorm": "norm",
    "trm_encoder.layer": "blocks", "LayerNorm": "norm", "dense_1": "first", "dense_2": "second", "dense_3": "third",
}  # fmt: skip


def ours(name):
    for theirs, mine in PARTS.items():
        name = name.replace(theirs, mine)
    return name


def fill(module, names, phase):
    """The official code's parameters by the formula, in its order."""
    values = {}
    shapes = {name: p.shape for name, p in module.named_parameters()}
    for n, name in enumerate(names):
        shape, ph = shapes[ours(name)], phase + 0.1 * n
        vector = formula(1, shape[0], ph)[0] if len(shape) == 1 else None
        norm = name.endswith("LayerNorm.weight")
        values[ours(name)] = formula(*shape, ph) if vector is None else 1 + 0.3 * vector if norm else 0.5 * vector
    module.load_state_dict(values)
    return module


def encoder(dropout=0.0):
    made = SequenceEncoder(SIZE["n_items"], SIZE["L"], dim=8, heads=2, layers=2, hidden=16, dropout=dropout).double()
    fill(made, HELD["names"], 0.05)
    with torch.no_grad():  # the padding item: an ordinary one whose vector is zero
        made.item_embedding.weight[0] = 0
    return made


def terms():
    made = ContrastTerms(8).double()
    for n, augment in enumerate(("augment_1", "augment_2")):
        setattr(made, augment, type(made.augment_1)(8, (4, 3)).double())
        fill(getattr(made, augment), HELD["augmenter_names"], 7.0 + 3 * n)
    return made


def sequences(name, lengths):
    """Official sequences with 0 behind the ends and for masked items."""
    items, sizes = torch.tensor(HELD["sequences"][name]), torch.tensor(HELD["sequences"][lengths])
    return torch.where(items == 0, NOTHING, items), sizes


THREE = (("seq", "len"), ("aug1", "aug_len1"), ("aug2", "aug_len2"))


def like(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("number", range(3), ids=["whole", "altered", "altered otherwise"])
def test_encoded_sequences_equal_the_official_ones(number):
    torch.testing.assert_close(encoder()(*sequences(*THREE[number])), like(HELD["encoded"][number]), rtol=1e-9, atol=0)


def both():
    net, contrast = encoder(), terms()
    h, h1, h2 = (net(*sequences(*names)) for names in THREE)
    target = torch.tensor(HELD["sequences"]["pos"])
    recommend = next_item_loss(h, net.item_embedding.weight, target).mean()
    return net, contrast, recommend + SIZE["lmd"] * contrast.between_views(h1, h2), contrast.meta(h1, h2)


def test_the_encoders_loss_and_gradients_equal_the_official_step():
    net, _, first, meta = both()
    loss = first + SIZE["beta"] * meta
    assert float(loss) == pytest.approx(HELD["step1"]["loss"], rel=1e-11)
    loss.backward()
    gradients = dict(net.named_parameters())
    for name, expected in HELD["step1"]["gradients"].items():
        # the official padding row takes no gradient of the softmax; neither side trains it
        mine, theirs = gradients[ours(name)].grad, like(expected)
        if name == "item_embedding.weight":
            mine, theirs = mine[1:], theirs[1 : len(mine)]
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def test_the_augmenters_loss_and_gradients_equal_the_official_step():
    """Their step also adds L_cl1, which no augmenter sees."""
    _, contrast, _, meta = both()
    meta.backward()
    for name, expected in HELD["step2"]["gradients"].items():
        number, part = name.split(".", 1)
        mine = getattr(contrast, f"augment_{int(number) + 1}").get_parameter(ours(part)).grad
        torch.testing.assert_close(mine, like(expected), rtol=1e-8, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    net, _, _, meta = both()
    views = sequences(*THREE[1]), sequences(*THREE[2])
    added = SIZE["lmd"] * terms().between_views(*(net(*view) for view in views))
    assert float(meta + added) == pytest.approx(HELD["step2"]["loss"], rel=1e-11)


def test_scores_equal_the_official_ones():
    net = encoder()
    scores = net(*sequences(*THREE[0])) @ net.item_embedding.weight.T
    torch.testing.assert_close(scores, like(HELD["scores"]), rtol=1e-9, atol=1e-12)


def dense_separation(a, b):
    z = torch.cat([a, b])
    scores, n = z @ z.T, len(a)
    positive = torch.cat([scores.diagonal(n), scores.diagonal(-n)])
    keep = ~(torch.eye(2 * n) + torch.eye(2 * n).roll(n, 0)).bool()
    negative = scores[keep].view(2 * n, -1)
    hardest = negative.max(1).values
    low, high = torch.minimum(positive, hardest), torch.maximum(positive, hardest)
    return (positive - low).clamp_min(0).mean() + (high[:, None] - negative).clamp_min(0).mean()


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("size", [2, 7])
def test_the_regulariser_is_the_dense_one(size, scale):
    a, b = (formula(size, 4, ph).mul(scale).requires_grad_() for ph in (0.3, 1.1))
    mine, dense = SeparationRegularizer()(a, b), dense_separation(a, b)
    torch.testing.assert_close(mine, dense)
    for x, y in zip(torch.autograd.grad(mine, (a, b)), torch.autograd.grad(dense, (a, b))):
        torch.testing.assert_close(x, y)


def test_a_single_pair_has_no_negatives_to_keep_apart():
    a = formula(1, 3, 0.1).requires_grad_()
    value = SeparationRegularizer()(a, a)
    value.backward()
    assert float(value) == 0
    assert not a.grad.any()


def test_next_items_are_told_by_the_softmax_over_all():
    h, table = formula(4, 3, 0.2).requires_grad_(), formula(6, 3, 0.9).requires_grad_()
    target = torch.tensor([5, 0, 0, 3])
    mine, plain = next_item_loss(h, table, target), torch.nn.functional.cross_entropy(
        h @ table.T, target, reduction="none"
    )
    torch.testing.assert_close(mine, plain)
    for x, y in zip(torch.autograd.grad(mine.sum(), (h, table)), torch.autograd.grad(plain.sum(), (h, table))):
        torch.testing.assert_close(x, y)


def test_the_future_and_what_stands_behind_an_end_change_nothing():
    net, (items, lengths) = encoder(), sequences("seq", "len")
    expected = net(items, lengths)
    other = torch.where(torch.arange(items.shape[1]) < lengths[:, None], items, 4)
    assert torch.equal(net(other, lengths), expected)
    for row in range(len(items)):
        alone = net(items[row : row + 1, : int(lengths[row])], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], expected[row], rtol=1e-10, atol=1e-12)


def test_sequences_of_all_lengths_are_encoded_as_they_are_alone():
    torch.manual_seed(0)
    net = SequenceEncoder(30, 40, dim=8, heads=2, layers=2, hidden=16, dropout=0.0).double()
    lengths = torch.tensor([33, 1, 8, 4, 40, 9, 16, 5, 1, 32])
    items = torch.where(torch.arange(40) < lengths[:, None], torch.randint(30, (10, 40)), NOTHING)
    together = net(items, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = net(items[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], together[row])


def test_every_place_is_the_last_one_of_its_prefix():
    net, (items, lengths) = encoder(), sequences("seq", "len")
    places, inside = net.every_place(items, lengths)
    assert int(inside.sum()) == len(places) == int(lengths.sum())
    rows, ends = inside.nonzero(as_tuple=True)
    prefixes = torch.where(torch.arange(items.shape[1]) <= ends[:, None], items[rows], NOTHING)
    torch.testing.assert_close(net(prefixes, ends + 1), places, rtol=1e-9, atol=1e-12)


def test_lengths_that_do_not_fit_are_refused():
    net = encoder()
    with pytest.raises(ValueError, match="7 items; there must be 1 to 6"):
        net(torch.ones(1, 7, dtype=torch.int64), torch.tensor([7]))
    with pytest.raises(ValueError, match="0 items"):
        net(torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 0]))


def test_operators_do_what_their_names_say():
    rng, n = np.random.default_rng(0), 400
    items, lengths = np.tile(np.append(np.arange(10, 20), [NOTHING] * 2), (n, 1)), np.full(n, 10)
    numbers = rng.random((n, 13))
    parts, kept = crop(items, lengths, numbers, 0.5)
    assert (kept == 5).all()
    assert (np.diff(parts[:, :5], axis=1) == 1).all(), "a stretch"
    assert (parts[:, 5:] == NOTHING).all()
    assert set(parts[:, 0]) == set(range(10, 16)), "every stretch is drawn"
    hidden, same = mask(items, lengths, numbers, 0.5)
    assert (same == 10).all()
    assert ((hidden[:, :10] == NOTHING).sum(1) == 5).all()
    assert ((hidden == items) | (hidden == NOTHING)).all()
    assert 150 < (hidden[:, 0] == NOTHING).sum() < 250, "every place as often"
    moved, same = reorder(items, lengths, numbers, 0.8)
    assert (np.sort(moved[:, :10], 1) == items[:, :10]).all()
    assert (moved[:, 10:] == NOTHING).all()
    changed = moved != items
    assert (changed.sum(1) > 0).mean() > 0.9
    spans = [np.ptp(np.flatnonzero(row)) for row in changed if row.any()]
    assert max(spans) == 7, "eight places at most"
    assert {int(np.flatnonzero(row)[0]) for row in changed if row.any()} >= {0, 1, 2}


def test_two_views_are_of_two_different_operators_and_a_row_is_altered_by_its_own_numbers():
    rng = np.random.default_rng(1)
    items = np.tile(np.arange(10, 20), (600, 1))
    numbers = rng.random((600, numbers_for(10)))
    (first, ends), (second, others) = altered(items, np.full(600, 10), numbers)

    def operator(view, end):
        return "crop" if end < 10 else "mask" if (view == NOTHING).any() else "reorder"

    pairs = [(operator(a, n), operator(b, m)) for a, n, b, m in zip(first, ends, second, others)]
    counts = {pair: pairs.count(pair) for pair in set(pairs)}
    assert len(counts) == 6
    assert all(60 < count < 140 for count in counts.values()), counts
    alone = altered(items[7:8], np.array([10]), numbers[7:8])
    assert (alone[0][0] == first[7]).all()
    assert (alone[1][0] == second[7]).all()
    single = altered(np.array([[3, NOTHING]]), np.array([1]), numbers[:1, : numbers_for(2)])
    assert [view[0].tolist() for view in single] == [[[3, NOTHING]]] * 2
