"""BM3 against the official code's numbers, and what its objective must be blind or sensitive to."""

import pytest
import torch
from recsys_formulas import adjacency, formula, frozen

from counterpoint.recsys.bm3 import BM3Network
from counterpoint.recsys.models.features import FeatureTables

HELD = frozen("bm3")
USERS, ITEMS = torch.tensor(HELD["users"]), torch.tensor(HELD["items"])
RAW = {"text": formula(5, 3, 0.6), "image": formula(5, 7, 0.5)}
NAMES = {
    "user_embedding.weight": "user_embedding.weight",
    "item_embedding.weight": "item_id_embedding.weight",
    "predictor.weight": "predictor.weight",
    "predictor.bias": "predictor.bias",
    **{f"features.raw_{m}": f"{m}_embedding.weight" for m in RAW},
    **{f"project.{m}.{p}": f"{m}_trs.{p}" for m in RAW for p in ("weight", "bias")},
}


class DroppedByFormula(BM3Network):
    """Drops what the frozen numbers dropped, table after table."""

    def dropped(self, name, x, ids):
        phase = 2.0 + ["user", "item", *self.project].index(name)
        rows = 6 if name == "user" else 5
        return x * (formula(rows, x.shape[1], phase) > 0)[ids] * 2


def network(modalities=("text", "image"), layers=1, dropped=False, trainable=True):
    features = FeatureTables({m: RAW[m].shape[1] for m in modalities}, 5, trainable=trainable)
    kind = DroppedByFormula if dropped else BM3Network
    made = kind(adjacency(HELD["edges"], 6, 5), 6, features, 4, layers, 0.0).double()
    values = {
        "user_embedding.weight": formula(6, 4, 0.1), "item_embedding.weight": formula(5, 4, 0.2),
        "predictor.weight": formula(4, 4, 0.3), "predictor.bias": formula(1, 4, 0.4)[0],
        "project.image.weight": formula(4, 7, 0.7), "project.image.bias": formula(1, 4, 0.8)[0],
        "project.text.weight": formula(4, 3, 0.9), "project.text.bias": formula(1, 4, 1.0)[0],
    }  # fmt: skip
    for m in modalities:
        features.load(m, RAW[m])
    made.load_state_dict({k: v for k, v in values.items() if k in made.state_dict()}, strict=False)
    return made


def embedded(net, users, items):
    of_users, of_items = net.tables()
    return {"user": of_users[users], "item": of_items[items], **net.modalities(items)}


def loss_of(net, users=USERS, items=ITEMS):
    terms = net.terms(embedded(net, users, items), users, items)
    weights = {"rec": 1.0, "align": 2.0, "mask": 2.0}
    return sum(weights[k] * v.mean() for k, v in terms.items()) + 0.1 * net.regularizer(*net.tables())


def made_for(case):
    layers, modalities = case.split(" layers, ")
    named = modalities.removesuffix(", dropped").split("+")
    return network([m for m in RAW if m in named], int(layers), case.endswith("dropped"))


@pytest.mark.parametrize("case", HELD["cases"])
def test_loss_gradients_and_scores_equal_the_official_code(case):
    net, held = made_for(case), HELD["cases"][case]
    loss = loss_of(net)
    assert float(loss) == pytest.approx(held["loss"], rel=1e-12)
    loss.backward()
    gradients = {name: p.grad for name, p in net.named_parameters()}
    assert {NAMES[name] for name in gradients} == held["gradients"].keys()
    for name, gradient in gradients.items():
        expected = torch.tensor(held["gradients"][NAMES[name]], dtype=torch.float64)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    users, items = net.tables()
    scores = net.predictor(users) @ net.predictor(items).T
    torch.testing.assert_close(scores, torch.tensor(held["scores"], dtype=torch.float64), rtol=1e-11, atol=1e-11)


def test_gradients_are_those_of_finite_differences():
    """Through every path but the targets, which are held fixed on both sides."""
    net = network()
    goal = {k: v.detach() for k, v in embedded(net, USERS, ITEMS).items()}
    net.dropped = lambda name, x, ids: goal[name]

    def loss(*values):
        names = [name for name, _ in net.named_parameters()]
        return torch.func.functional_call(_Loss(net), {f"net.{n}": v for n, v in zip(names, values)}, ())

    assert torch.autograd.gradcheck(loss, tuple(p.detach().requires_grad_() for p in net.parameters()), atol=1e-7)


class _Loss(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self):
        return loss_of(self.net)


def test_frozen_features_take_no_gradient_and_change_no_other():
    trained, frozen_ones = network(), network(trainable=False)
    loss_of(trained).backward()
    loss_of(frozen_ones).backward()
    ours = dict(trained.named_parameters())
    assert {n for n in ours if "raw" in n} == ours.keys() - dict(frozen_ones.named_parameters()).keys()
    for name, parameter in frozen_ones.named_parameters():
        torch.testing.assert_close(parameter.grad, ours[name].grad, rtol=0, atol=0)


def test_gradients_that_keep_their_memory_are_the_same():
    plain, keeping = network(), network()
    loss_of(plain).backward()
    for _ in range(2):
        keeping.zero_grad()
        keeping.features.keep_gradients()
        place = keeping.features.raw_image.grad.data_ptr()
        loss_of(keeping).backward()
        assert keeping.features.raw_image.grad.data_ptr() == place
        for (name, a), b in zip(keeping.named_parameters(), plain.parameters()):
            torch.testing.assert_close(a.grad, b.grad, msg=lambda m, n=name: f"{n}: {m}")


def test_targets_are_scaled_at_will():
    """Cosines: dropout's factor 1 / (1 - p) and the length of any target mean nothing."""
    net = network()
    one = loss_of(net)
    net.dropped = lambda name, x, ids: 7 * x
    assert float(loss_of(net)) == pytest.approx(float(one), rel=1e-12)


def test_an_item_without_a_modality_adds_nothing_to_its_terms():
    net = network()
    known = torch.tensor([True, False, True, True, True])
    net.features.load("image", RAW["image"], known)
    terms = net.terms(embedded(net, USERS, ITEMS), USERS, ITEMS)
    text = network(["text"])
    alone = text.terms(embedded(text, USERS, ITEMS), USERS, ITEMS)
    missing = ~known[ITEMS]
    assert missing.any()
    for term in ("align", "mask"):
        torch.testing.assert_close(terms[term][missing], alone[term][missing])
        assert (terms[term][~missing] > alone[term][~missing]).all()


def test_one_mask_an_id():
    """The official code drops out the table and then takes the batch's rows from it."""
    torch.manual_seed(0)
    net = network()
    net.dropout = 0.5
    x, ids = torch.ones(6, 400).double(), torch.tensor([4, 1, 4, 2, 2, 4])
    out = net.dropped("item", x, ids)
    assert torch.equal(out[0], out[2])
    assert torch.equal(out[3], out[4])
    assert not torch.equal(out[0], out[1])
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert float((out == 0).double().mean()) == pytest.approx(0.5, abs=0.1)


def test_old_rows_keep_their_bits_when_tables_grow():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net.grow(adjacency([*HELD["edges"], (6, 5)], 7, 6), 7)
    for name, value in net.state_dict().items():
        assert torch.equal(value[: len(before[name])], before[name]), name
    torch.testing.assert_close(net.user_embedding.weight[6], before["user_embedding.weight"].mean(0))
    assert not net.features.known("image")[5], "nothing is imputed"
    assert torch.isfinite(loss_of(net))
