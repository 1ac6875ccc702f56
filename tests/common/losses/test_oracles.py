"""Every frozen official number: value and gradient to 1e-8 in float64, or the stated relation to deviating code."""

import json
import math
from pathlib import Path

import pytest
import torch

from counterpoint.common.kernels import Pairs
from counterpoint.common.losses.cacr import CACR
from counterpoint.common.losses.dcl import DCL
from counterpoint.common.losses.dexml import DecoupledSoftmax, MultiLabelSigmoid, MultiLabelSoftmax
from counterpoint.common.losses.gap import Alignment, Uniformity
from counterpoint.common.losses.hcl import HCL
from counterpoint.common.losses.m3col import MixCo, SoftClip
from counterpoint.common.losses.multiview import DHEL, MVDHEL, MVInfoNCE
from counterpoint.common.losses.norton import Norton
from counterpoint.common.losses.rebalance import BMC, BNI, GAI, BalancedSoftmax
from counterpoint.common.losses.siglip import SigLIP
from counterpoint.common.losses.sogclr import ISogCLR, SogCLR
from counterpoint.common.losses.symile import Symile

DOUBLE = torch.float64


def test_dcl(oracle):
    oracle.check("dcl_oneway", DCL(0.1, symmetric=False))


def test_siglip(oracle):
    oracle.check("siglip", SigLIP(temperature=0.1, bias=-10.0).double())


@pytest.mark.parametrize("tau_plus", [0.1, 0.01])
def test_hcl(oracle, tau_plus):
    oracle.check(f"hcl_tauplus_{tau_plus}", HCL(0.5, tau_plus=tau_plus, beta=1.0))


def test_multi_view(oracle):
    oracle.check("mv_dhel", MVDHEL(0.5), "xyz")
    oracle.check("dhel_2view", DHEL(0.5))
    oracle.check("cl1", MVInfoNCE(0.5, per_view=True), "xyz")


def test_cacr(oracle):
    loss = CACR(t_plus=1.0, t_minus=2.0)
    oracle.check("cacr_attraction", lambda *v: loss.attraction(*loss.embed(*v)), "xyz")
    oracle.check("cacr_repulsion", lambda *v: loss.repulsion(*loss.embed(*v)), "xyz")


def test_sepclr_terms(oracle):
    oracle.check("sepclr_align", Alignment(temperature=0.5))
    oracle.check("uniformity_t2_over2", Uniformity(t=1.0), "x")  # exp(-d^2 / (2 * 0.5))


def test_symile(oracle):
    oracle.check("symile_n_squared", Symile(1 / 3, negatives="n_squared", chunk=2), "xyz")


def test_m3col(oracle):
    params = oracle.fixture("m3col_mixco")["params"]
    perm, mixing = torch.tensor(params["perm"]), torch.tensor(params["betas"], dtype=DOUBLE)
    oracle.check("m3col_mixco", lambda x, y: MixCo(0.1)(x, y, perm=perm, mixing=mixing))
    oracle.check("m3col_softclip", SoftClip())


@pytest.mark.parametrize(
    ("name", "loss"),
    [("decoupled-softmax", DecoupledSoftmax), ("softmax", MultiLabelSoftmax), ("bce", MultiLabelSigmoid)],
)
def test_dexml(oracle, name, loss):
    params = oracle.fixture(f"dexml_{name}")["params"]
    count = torch.tensor([0] + [len(p) for p in params["positives"]])
    pairs = Pairs(count.cumsum(0), torch.tensor([p for row in params["positives"] for p in row]))
    oracle.check(f"dexml_{name}", lambda x, y: loss(1 / params["scale"])(x, y, pairs))


def test_norton_and_its_transport_plan(oracle):
    oracle.check("norton_clip_term", Norton(beta=0.3, iterations=50))
    x, y = oracle.inputs["x"], oracle.inputs["y"]
    plan = Norton(iterations=50).targets(x, y)[0].parts[0][1]
    dense = torch.exp(plan.scale * plan.q_t @ plan.k_t.T + plan.row_bias[:, None] + plan.col_bias)
    wanted = torch.tensor(oracle.fixture("norton_clip_term")["Q"], dtype=DOUBLE)
    torch.testing.assert_close(dense, wanted, rtol=0, atol=1e-8)


def test_isogclr_gradients_and_state(oracle):
    f = oracle.fixture("isogclr_v1")
    p, before = f["params"], {k: torch.tensor(f[k], dtype=DOUBLE) for k in ("u_before", "tau_before")}
    loss = ISogCLR(
        6,
        gamma=p["gamma"],
        rho=p["rho"],
        eta=p["eta"],
        beta=p["beta"],
        bounds=(p["tau_min"], p["tau_max"]),
        relative=False,
    ).double()
    loss.state.log_u.copy_(before["u_before"].log())
    loss.state.temperature.copy_(before["tau_before"])
    start = {k: v.clone() for k, v in loss.state_dict().items()}

    def call(x, y):
        loss.load_state_dict(start)
        return loss(x, y, index=torch.arange(6))

    oracle.check("isogclr_v1", call, value=False)
    for name, wanted in (("temperature", "tau_after"), ("momentum_temperature", "grad_tau")):
        torch.testing.assert_close(getattr(loss.state, name), torch.tensor(f[wanted], dtype=DOUBLE), rtol=0, atol=1e-8)
    torch.testing.assert_close(loss.state.log_u.exp(), torch.tensor(f["u_after"], dtype=DOUBLE), rtol=0, atol=1e-8)


def test_sogclr_bimodal_gradient_is_the_official_one_over_half_the_number_of_negatives(oracle):
    f = oracle.fixture("sogclr_v2")
    loss = SogCLR(6, 0.2, gamma=0.6, bimodal=True).double()

    def call(x, y):
        # Their u is stored as u exp(-b) with b the running maximum of h / T (0 at the start): log u = log u + b.
        loss.state.log_u_a = torch.tensor(f["u1_before"], dtype=DOUBLE).log()
        loss.state.log_u_b = torch.tensor(f["u2_before"], dtype=DOUBLE).log()
        return loss(x, y, index=torch.arange(6))

    # It omits the division by the 5 negatives and halves the sum of the two sides.
    oracle.check("sogclr_v2", call, factor=5.0 / 2, value=False)
    for ours, u, b in ((loss.state.log_u_a, "u1_after", "b1_after"), (loss.state.log_u_b, "u2_after", "b2_after")):
        wanted = torch.tensor(f[u], dtype=DOUBLE).log() + torch.tensor(f[b], dtype=DOUBLE)
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-8)


def test_rebalancing():
    data = json.loads((Path(__file__).parent / "oracles" / "rebalancing.json").read_text())
    z1, z2 = (torch.tensor(data["inputs"][k], dtype=DOUBLE) for k in ("z1", "z2"))
    value = {k.split()[0]: v for k, v in data["values"].items()}
    p, y, noise = z1[:, 0] * 0.1, z2[:, 0] * 0.1, math.sqrt(0.02)

    def tensor(*numbers):
        return torch.tensor(numbers, dtype=DOUBLE)

    gai = GAI(tensor(-0.1, 0, 0.2), tensor(0.01, 0.02, 0.005), tensor(0.2, 0.5, 0.3), noise).double()
    bni = BNI(tensor(-0.2, 0, 0.2), tensor(0.2, 0.5, 0.3), noise).double()
    assert gai(p, y).item() == pytest.approx(value["circuitgcl_gai"], abs=1e-6)
    assert bni(p, y).item() == pytest.approx(value["circuitgcl_bni"], abs=1e-6)
    assert BMC(noise).double()(p, y).item() == pytest.approx(value["bmc"], abs=1e-6)
    balanced = BalancedSoftmax(tensor(50, 30, 5))(z1[:, :3], torch.tensor(data["inputs"]["lab"]))
    assert balanced.item() == pytest.approx(value["circuitgcl_balanced_softmax"], abs=1e-6)


def test_every_fixture_is_used():
    folder = Path(__file__).parent
    text = "".join(p.read_text() for p in folder.glob("test_*.py"))
    fixtures = json.loads((folder / "oracles" / "common_losses.json").read_text())["fixtures"]
    assembled = {f"dexml_{n}" for n in ("decoupled-softmax", "softmax", "bce")} | {
        "hcl_tauplus_0.1",
        "hcl_tauplus_0.01",
    }
    assert [name for name in fixtures if name not in assembled and f'"{name}"' not in text] == []
