"""LightGCN, VBPR and SASRec's loss against numbers of official codes: values, every gradient, scores."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from recsys_formulas import formula, frozen

from counterpoint.common.trainers import create_system, override
from counterpoint.recsys.configs import LightGCNConfig, VBPRConfig
from counterpoint.recsys.data.features import ItemFeatures
from counterpoint.recsys.data.folder import InteractionData
from counterpoint.recsys.data.ids import IdMap
from counterpoint.recsys.data.log import Interactions
from counterpoint.recsys.lightgcn import LightGCN
from counterpoint.recsys.models.objectives import binary_loss
from counterpoint.recsys.vbpr import VBPR

GCN, VISUAL, SEQUENTIAL = frozen("lightgcn"), frozen("vbpr"), frozen("sasrec")
RAW = {"text": formula(5, 3, 0.6), "image": formula(5, 7, 0.5)}
WEIGHT = 0.3  # of the regularisers


def data(features=()):
    """The frozen numbers' edges as training interactions."""
    user, item = np.array(GCN["edges"]).T
    ids = IdMap([f"u{n}" for n in range(6)]), IdMap([f"i{n}" for n in range(5)])
    log = Interactions(*ids, user, item, split=np.zeros(len(user)))
    kept = {n: (lambda n=n: ItemFeatures(RAW[n].numpy().astype(np.float32), np.ones(5, bool))) for n in features}
    return InteractionData(log, *(pa.table({"id": names.names}) for names in ids), kept)


def batch(held):
    return {ours: torch.tensor(held[theirs]) for ours, theirs in
            (("user", "users"), ("item", "items"), ("negative", "negatives"))}  # fmt: skip


def equal(found, expected, tolerance=1e-10):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=1e-11)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_lightgcn_equals_the_authors_code(layers):
    """Both terms, the gradients of both tables, all scores."""
    system = create_system(LightGCN, override(LightGCNConfig(), {"dim": 4, "layers": layers, "reg": WEIGHT}), data())
    system.double()
    with torch.no_grad():
        system.user_embedding.weight.copy_(formula(6, 4, 0.1))
        system.item_embedding.weight.copy_(formula(5, 4, 0.2))
    held, asked = GCN["cases"][f"{layers} layers"], batch(GCN)
    terms = {name: rows.mean() for name, rows in system.losses(asked, system.embed(asked)).items()}
    assert terms["bpr"].item() == pytest.approx(held["bpr"], rel=1e-12)
    assert terms["reg"].item() == pytest.approx(WEIGHT * held["reg"], rel=1e-12)
    sum(terms.values()).backward()
    equal(system.user_embedding.weight.grad, held["gradients"]["embedding_user.weight"])
    equal(system.item_embedding.weight.grad, held["gradients"]["embedding_item.weight"])
    users, items = system.tables()
    equal((users @ items.T).detach(), held["scores"])


@pytest.mark.parametrize("names", [("text",), ("text", "image")])
def test_vbpr_equals_mmrecs_where_both_say_the_same(names):
    """BPR and its gradients, with the users' factors alike in all modalities and no item bias, as MMRec has them. Its
    projection's bias adds the same to all items of a user: no gradient, and no change of order."""
    system = create_system(VBPR, override(VBPRConfig(), {"dim": 4}), data(names)).double()
    width = sum(RAW[name].shape[1] for name in names)
    users, project = 0.3 * formula(6, 8, 0.1), formula(4, width, 0.7)
    with torch.no_grad():
        system.user_id.weight.copy_(users[:, :4])
        system.item_id.weight.copy_(formula(5, 4, 0.2))
        start = 0
        for name in names:
            part = slice(start, start + RAW[name].shape[1])
            system.project[name].weight.copy_(project[:, part])
            system.taste[name].weight.copy_(users[:, 4:])
            system.feature_table.load(name, RAW[name])
            start = part.stop
    held, asked = VISUAL["cases"]["+".join(names)], batch(VISUAL)
    loss = system.losses(asked, system.embed(asked))["bpr"].mean()
    assert loss.item() == pytest.approx(held["bpr"], rel=1e-8)  # MMRec adds 1e-10 inside the logarithm
    loss.backward()
    of_users = torch.cat([system.user_id.weight.grad, sum(table.weight.grad for table in system.taste.values())], 1)
    equal(of_users, held["bpr_gradients"]["u_embedding"], 1e-7)
    equal(system.item_id.weight.grad, held["bpr_gradients"]["i_embedding"], 1e-7)
    of_projections = torch.cat([system.project[name].weight.grad for name in names], 1)
    equal(of_projections, held["bpr_gradients"]["item_linear.weight"], 1e-7)
    assert np.abs(held["bpr_gradients"]["item_linear.bias"]).max() < 1e-12
    u, i = (x.detach() for x in system.tables())
    shift = users[:, 4:] @ formula(1, 4, 0.8)[0]
    equal((u @ i.T + shift[:, None])[VISUAL["users"]], held["scores"])


@pytest.mark.parametrize("case", SEQUENTIAL["cases"])
def test_sasrecs_binary_loss_equals_the_ports(case):
    """Of the port's own features: value, and gradients of features and items, over the places that have a next item."""
    held = SEQUENTIAL["cases"][case]
    size = SEQUENTIAL["config"]
    features = torch.tensor(held["features"], dtype=torch.float64, requires_grad=True)
    table = formula(size["items"] + 1, size["hidden_units"], 0.05)
    table[0] = 0
    table.requires_grad_()
    positive, negative = (torch.tensor(SEQUENTIAL[name]) for name in ("positives", "negatives"))
    asked = positive > 0
    scores = ((features[asked] * table[items[asked]]).sum(1) for items in (positive, negative))
    loss = binary_loss(*scores).mean()
    assert loss.item() == pytest.approx(held["loss"], rel=1e-11)
    loss.backward()
    equal(features.grad, held["by_features"]["features"])
    equal(table.grad, held["by_features"]["items"])
