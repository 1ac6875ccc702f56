"""MDiCo's loss is the official one under the released heads; the default gives every part its own task."""

import sys
import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from counterpoint.common.trainers import override
from counterpoint.geospatial.mdico import MDiCo
from counterpoint.geospatial.models.mdico import MDiCoHeads, SharedPart

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import batch_of, form

# fmenat/MDiCo f1630aa, code/models/mdico.py, run in float64 on closed-form weights and inputs.
OFFICIAL = {
    "main": (1.6154425293977974 + 1.4161891799052435) / 2,
    "auxiliary": (1.590723574686284 + 1.3544520975474896) / 2,
    "contrast": 3.8184801648931934 + 3.818480164893193,
    "discriminative": (0.80083215825145 + 0.3878953359967141) / 2,
}
GRADIENTS = {
    "unique.s1.weight": 0.09546611592363721,
    "common.s2.weight": 1.7004730708725408,
    "shared.s2.layers.0.weight": 2.310296739233642,
    "heads.main.s1.weight": 0.3184998904823107,
    "heads.auxiliary.weight": 0.2020506671180804,
    "heads.sensor_of_unused.weight": 0.12172940688310649,
}
NAMES = {
    "unique.{}.weight": "modality_encoders_unique.{}.l.weight",
    "common.{}.weight": "modality_encoders_common.{}.l.weight",
    "shared.{}.layers.0.weight": "aux_common_layer.{}.0.weight",
    "shared.{}.layers.1.weight": "aux_common_layer.{}.1.weight",
    "heads.main.{}.weight": "modality_prediction_heads.{}.linear_layer.weight",
    "heads.auxiliary.weight": "aux_prediction_head.linear_layer.weight",
    "heads.sensor_of_specific.weight": "modality_head_awr_inf.linear_layer.weight",
    "heads.sensor_of_unused.weight": "modality_head_awr_irr.linear_layer.weight",
}


def network(released):
    net = nn.Module()
    net.unique = nn.ModuleDict({"s1": nn.Linear(3, 8), "s2": nn.Linear(5, 8)})
    net.common = nn.ModuleDict({"s1": nn.Linear(3, 8), "s2": nn.Linear(5, 8)})
    net.shared = nn.ModuleDict({s: SharedPart(8) for s in ("s1", "s2")})
    net.heads = MDiCoHeads(("s1", "s2"), 4, 4, 0.1, released)
    net.double()
    own = dict(net.named_parameters())
    with torch.no_grad():
        for here, there in NAMES.items():
            for sensor in ("s1", "s2"):
                for kind in ("weight", "bias"):
                    value = own[here.format(sensor).replace("weight", kind)]
                    name = there.format(sensor).replace("weight", kind)
                    wave = torch.sin(
                        0.37 * torch.arange(value.numel(), dtype=torch.float64) + zlib.crc32(name.encode()) % 1000
                    )
                    value.copy_(0.5 * wave.reshape(value.shape))
    return net


def terms(net):
    x = {"s1": torch.sin(0.7 * torch.arange(18.0, dtype=torch.float64)).reshape(6, 3),
         "s2": torch.sin(1.1 * torch.arange(30.0, dtype=torch.float64)).reshape(6, 5)}  # fmt: skip
    parts = {}
    for s in x:
        unique = net.unique[s](x[s])
        parts[s] = {"shared": net.shared[s](net.common[s](x[s])), "specific": unique[:, :4], "unused": unique[:, 4:]}
    return net.heads.terms(parts, torch.tensor([0, 1, 2, 3, 1, 0]))


def test_the_four_terms_and_their_gradients_are_the_official_ones():
    net = network(released=True)
    found = terms(net)
    assert {k: v.item() for k, v in found.items()} == pytest.approx(OFFICIAL, rel=1e-9)
    sum(found.values()).backward()
    own = dict(net.named_parameters())
    assert {name: own[name].grad.norm().item() for name in GRADIENTS} == pytest.approx(GRADIENTS, rel=1e-7)
    assert own["unique.s1.weight"].grad[4:].abs().max() == 0  # the released heads leave the unused half alone


def test_by_default_the_unused_half_learns_to_tell_the_sensor_and_the_shared_part_does_not():
    net = network(released=False)
    terms(net)["discriminative"].backward()
    own = dict(net.named_parameters())
    assert own["unique.s1.weight"].grad[4:].abs().max() > 0
    assert own["common.s1.weight"].grad is None


def system(**changes):
    config = override(MDiCo.Config(), {"width": 4, "dim": 8, "dropout": 0.0, **changes})
    return MDiCo(config, form(scaling="standard").assets().replace(classes=["crop", "trees", "water"]))


def batch(n=6):
    torch.manual_seed(0)
    made = batch_of({"s1": torch.randn(n, 2, 16, 16), "s2": torch.randn(n, 12, 16, 16)})
    return made | {"label": ["crop", "trees", None, "water", "glacier", "crop"][:n]}


def test_a_missing_label_and_an_unknown_one_have_no_task():
    torch.manual_seed(0)
    one = system()
    assert one.targets(batch()).tolist() == [0, 1, -1, 2, -1, 0]
    found = one.losses(batch(), one.embed(batch()))
    assert set(found) == {"main", "auxiliary", "contrast", "discriminative"}
    nobody = {**batch(), "label": [None] * 6}
    assert one.losses(nobody, one.embed(nobody))["main"] == 0


@torch.no_grad()
def test_one_sensor_alone_is_enough_in_use():
    one = system().eval()
    both = batch()
    alone = {k: v for k, v in both.items() if not k.startswith("s2")}
    assert torch.allclose(one.predict(alone)["s1"], one.predict(both)["s1"], atol=1e-6)
    assert set(one.features(alone)) == {"s1"}


def test_terms_can_be_switched_off():
    one = system(contrast=0.0, discriminative=0.0)
    assert set(one.losses(batch(), one.embed(batch()))) == {"main", "auxiliary"}
