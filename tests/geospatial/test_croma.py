"""CROMA: biases, losses and sizes are those of the official code; what the masks mean; any size of chip."""

import json
import sys
from pathlib import Path

import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.croma_loss import masked_error, normalised_patches
from counterpoint.geospatial.croma_weights import SECTIONS, load_published, pretraining_name
from counterpoint.geospatial.models.alibi import alibi_bias, alibi_slopes, grid_positions, sincos_2d
from counterpoint.geospatial.models.croma import CromaNetwork
from counterpoint.geospatial.models.masking import patchify, random_mask, unpatchify

sys.path.insert(0, str(Path(__file__).parent))
from geo_helpers import batch_of, closed_form, system_of

OFFICIAL = json.loads((Path(__file__).parent / "oracles" / "croma.json").read_text())
TINY = {"encoder.dim": 32, "encoder.depth": 2, "encoder.heads": 4, "encoder.patch_size": 4, "decoder.dim": 32,
        "decoder.heads": 4, "data.size": 16}  # fmt: skip


def images(n=4, side=16, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {s: torch.rand(n, c, side, side, generator=generator, dtype=dtype) for s, c in (("s1", 2), ("s2", 12))}


def test_alibi_is_the_official_table():
    known = OFFICIAL["alibi"]
    p = grid_positions(3, 3).double()
    bias = alibi_bias(alibi_slopes(16).double(), p, p)
    assert bias.shape == (16, 9, 9)
    assert bias[0, 0, 8].item() == pytest.approx(known["heads16_h0_p0p8"], abs=1e-6)
    assert bias[15, 0, 8].item() == pytest.approx(known["heads16_h15_p0p8"], abs=1e-8)
    assert bias[0].sum().item() == pytest.approx(known["heads16_h0_sum"], abs=1e-4)
    q = grid_positions(2, 2).double()
    assert alibi_bias(alibi_slopes(12).double(), q, q)[:, 0, 3].tolist() == pytest.approx(known["heads12"], abs=1e-6)


def test_bias_of_kept_patches_is_that_part_of_the_whole_table():
    """X-ALiBi: rows of the radar's kept positions, columns of the optical ones, from grids that need not be square."""
    p, slopes = grid_positions(3, 5), alibi_slopes(4)
    whole = alibi_bias(slopes, p, p)
    rows, cols = torch.tensor([[2, 7, 14]]), torch.tensor([[0, 3]])
    part = alibi_bias(slopes, p[rows], p[cols])
    assert torch.equal(part[0], whole[:, rows[0]][:, :, cols[0]])
    assert torch.equal(whole, whole.transpose(1, 2))


@pytest.fixture(scope="module")
def official():
    """The system under the frozen run's weights, and its images and masks."""
    torch.manual_seed(0)
    changes = {"encoder.dim": 32, "encoder.depth": 2, "encoder.heads": 4, "encoder.patch_size": 8, "decoder.dim": 32,
               "released_bias": True}  # fmt: skip
    system = system_of(Croma, changes).double()
    system.network.s1_encoder.slopes = alibi_slopes(4).double()
    system.network.s2_encoder.slopes = alibi_slopes(4).double()
    own = dict(system.named_parameters())
    theirs = {pretraining_name(name): name for name in _official_names(own)}
    assert set(theirs) == set(own)
    with torch.no_grad():
        for name, value in own.items():
            if "logit_scale" not in name:
                value.copy_(closed_form(theirs[name], value.shape))
    count = 3 * 14 * 120 * 120
    k = torch.arange(count, dtype=torch.float64)
    x = torch.sin(0.013 * k + k**2 * 1e-7).reshape(3, 14, 120, 120)
    batch = batch_of({"s1": x[:, 12:], "s2": x[:, :12]}, patch=8)
    n = torch.arange(3 * 225, dtype=torch.float64) ** 1.5
    batch |= {"s1_noise": torch.sin(0.77 * n).reshape(3, 225), "s2_noise": torch.sin(1.31 * n).reshape(3, 225)}
    return system, batch, {here: there for there, here in theirs.items()}


def _official_names(own):
    """Every tensor's name in the official pretraining file, from ours: the inverse of the key map, written out."""
    found = []
    for name in own:
        said = name.replace("network.s1_encoder.vit.", "radar_encoder.").replace(
            "network.s2_encoder.vit.", "optical_encoder."
        )
        said = said.replace("network.joint_encoder.", "cross_encoder.").replace(
            "network.s1_encoder.gap.", "GAP_FFN_radar."
        )
        said = said.replace("network.s2_encoder.gap.", "GAP_FFN_optical.")
        said = said.replace("s1_projection.", "global_contrast_loss.radar_proj.")
        said = said.replace("s2_projection.", "global_contrast_loss.optical_proj.")
        said = said.replace("contrast.logit_scale.log_scale", "global_contrast_loss.logit_scale")
        said = said.replace(".net.3.", ".net.2.")
        for part in ("qkv", "q", "k", "v"):
            said = said.replace(f".to_{part}.", f".create_{part}.")
        if ".layers." in said and ".0.to_out." in said:  # of self-attention alone; cross-attention keeps `to_out`
            said = said.replace(".to_out.", ".out.")
        found.append(said)
    return found


def test_both_losses_and_their_gradients_are_the_official_ones(official):
    system, batch, names = official
    system.zero_grad()
    terms = system.losses(batch, system.embed(batch))
    assert terms["contrast"].mean().item() == pytest.approx(OFFICIAL["contrast"], abs=1e-9)
    assert terms["reconstruction"].mean().item() == pytest.approx(OFFICIAL["mae"], rel=1e-6)
    sum(term.mean() for term in terms.values()).backward()
    own = dict(system.named_parameters())
    for there, norm in OFFICIAL["gradient_norms"].items():
        assert own[names_to(names, there)].grad.norm().item() == pytest.approx(norm, rel=2e-5), there


def test_self_attention_of_the_joint_encoder_knows_the_radar_patches_own_distances(official):
    """The released bias is another one under masks that differ, and the same without masks."""
    system, batch, _ = official
    own = CromaNetwork({"s1": 2, "s2": 12}, 32, 2, 4, 8).double()
    own.load_state_dict(system.network.state_dict())
    for encoder in (own.s1_encoder, own.s2_encoder):
        encoder.slopes = alibi_slopes(4).double()
    pictures, valid = system.images(batch), system.valid(batch, 8)
    masks = system.masks(batch, valid)
    with torch.no_grad():
        plain = [n.encode(pictures)["joint"] for n in (own, system.network)]
        masked = [n.encode(pictures, masks)["joint"] for n in (own, system.network)]
        alike = [n.encode(pictures, dict.fromkeys(masks, masks["s1"]))["joint"] for n in (own, system.network)]
    assert torch.allclose(*plain, atol=1e-12)
    assert torch.allclose(*alike, atol=1e-12)
    assert not torch.allclose(*masked, atol=1e-4)


def names_to(names, there):
    return next(here for there_, here in names.items() if there_ == there)


@pytest.mark.parametrize(("size", "dim", "depth"), [("base", 768, 12), ("large", 1024, 24)])
def test_parameter_counts_are_the_official_ones(size, dim, depth):
    with torch.device("meta"):
        network = CromaNetwork({"s1": 2, "s2": 12}, dim, depth, 16, 8)

    def count(part):
        return sum(p.numel() for p in part.parameters())

    known = OFFICIAL["parameters"][size]
    assert count(network.s1_encoder.vit) == known["s1_encoder"]
    assert count(network.s2_encoder.vit) == known["s2_encoder"]
    assert count(network.joint_encoder) == known["joint_encoder"]
    assert count(network.s1_encoder.gap) == count(network.s2_encoder.gap) == known["gap"]
    config = Croma.Config()
    assert (config.encoder.dim, config.encoder.depth) == (768, 12)
    assert Croma.presets["large"]["encoder"] == {"dim": 1024, "depth": 24, "heads": 16}


def test_published_weights_load_by_name_and_shape(tmp_path):
    torch.manual_seed(0)
    network = CromaNetwork({"s1": 2, "s2": 12}, 32, 2, 4, 8)
    sections = {section: {} for section in SECTIONS}
    for name, value in network.state_dict().items():
        section = max((s for s in SECTIONS if name.startswith(SECTIONS[s])), key=lambda s: len(SECTIONS[s]))
        sections[section][name.removeprefix(SECTIONS[section])] = value + 1
    assert {"linear_input.weight", "transformer.layers.0.0.to_qkv.weight", "transformer.norm_out.bias"} <= set(
        sections["s1_encoder"]
    )
    assert {"0.weight", "1.bias", "3.weight"} <= set(sections["s2_GAP_FFN"])
    assert "layers.0.1.to_k.weight" in sections["joint_encoder"]
    torch.save(sections, tmp_path / "CROMA_base.pt")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    load_published(network, tmp_path / "CROMA_base.pt")
    assert all(torch.equal(v, before[k] + 1) for k, v in network.state_dict().items())
    with pytest.raises(InputError, match="--preset large"):
        load_published(CromaNetwork({"s1": 2, "s2": 12}, 64, 2, 4, 8), tmp_path / "CROMA_base.pt")
    torch.save({"s1_encoder": {}}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="has no section"):
        load_published(network, tmp_path / "other.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.pt: no file of tensors"):
        load_published(network, tmp_path / "bad.pt")


def test_masks_are_independent_and_keep_what_holds_data():
    noise = torch.rand(8, 64, generator=torch.Generator().manual_seed(0))
    valid = torch.rand(8, 64, generator=torch.Generator().manual_seed(1)) < 0.5
    mask = random_mask(noise, 0.75, valid)
    assert mask.keep.shape == (8, 16)
    assert valid.gather(1, mask.keep).all()
    assert torch.equal(mask.hidden.sum(1), torch.full((8,), 48.0))
    order = torch.cat([mask.keep, torch.zeros(8, 48, dtype=torch.long)], 1).gather(1, mask.restore)
    seen = mask.hidden == 0
    assert torch.equal(order[seen], torch.arange(64).expand(8, -1)[seen])


def test_a_patch_is_its_pixels_band_by_band():
    x = torch.arange(2 * 3 * 8 * 12, dtype=torch.float32).reshape(2, 3, 8, 12)
    patches = patchify(x, 4)
    assert torch.equal(patches[1, 4].reshape(3, 4, 4), x[1, :, 4:8, 4:8])
    assert torch.equal(unpatchify(patches, 4, 2, 3), x)


def test_pixels_without_data_change_neither_target_nor_error():
    x = torch.rand(1, 2, 6, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(1, 2, 6, dtype=torch.bool)
    valid[0, 0, 3:] = False
    spoiled = x.clone()
    spoiled[0, 0, 3:] = 99.0
    assert torch.allclose(normalised_patches(x, torch.ones_like(valid)), normalised_patches(x), atol=1e-6)
    a, b = (normalised_patches(v, valid) for v in (x, spoiled))
    assert torch.allclose(a, b, atol=1e-4)
    assert torch.allclose(a[0, 0, :3], normalised_patches(x[:, :1, :3])[0, 0], atol=1e-5)
    hidden = torch.ones(1, 2)
    guess = torch.rand(1, 2, 6, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(
        masked_error(guess, a, hidden, valid), masked_error(guess + 9 * ~valid, b, hidden, valid), atol=1e-3
    )


@torch.no_grad()
def test_what_no_data_hides_reaches_no_embedding():
    """Whatever stands in pixels that are no data, tokens of other patches and the representations are the same."""
    torch.manual_seed(0)
    system = system_of(Croma, TINY).eval()
    batch = batch_of(images())
    batch["s2_valid"][0, :8, :8] = False
    other = {**batch, "s2": batch["s2"].clone()}
    other["s2"][0, :, :8, :8] = 0.7
    for name, z in system.features(batch).items():
        assert torch.allclose(z, system.features(other)[name], atol=1e-6), name
    clear = {**batch, "s2_valid": torch.ones_like(batch["s2_valid"])}
    assert not torch.allclose(system.features(clear)["s2"][0], system.features(batch)["s2"][0], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (64, 64), (16, 40)])
def test_chips_of_any_size_are_taken(shape):
    torch.manual_seed(0)
    system = system_of(Croma, TINY).eval()
    x = {"s1": torch.rand(2, 2, *shape), "s2": torch.rand(2, 12, *shape)}
    dense = system.dense_features(batch_of(x))
    assert {k: tuple(v.shape) for k, v in dense.items()} == dict.fromkeys(
        ("s1", "s2", "joint"), (2, shape[0] // 4, shape[1] // 4, 32)
    )
    assert system.encode(batch_of(x))["s1"].shape == (2, 32)


@torch.no_grad()
def test_a_shift_of_the_grid_changes_no_token():
    """2D-ALiBi knows distances alone: a chip of equal patches gives equal tokens by symmetry of the grid."""
    torch.manual_seed(0)
    system = system_of(Croma, TINY).eval()
    x = images(1)
    turned = {s: v.flip(-1) for s, v in x.items()}
    patchwise = {s: unpatchify(patchify(v, 4), 4, 4, 4) for s, v in turned.items()}
    # Mirror whole patches, not the pixels in them.
    mirrored = {s: unpatchify(patchify(v, 4).unflatten(1, (4, 4)).flip(2).flatten(1, 2), 4, 4, 4) for s, v in x.items()}
    a, b = system.dense_features(batch_of(x))["joint"], system.dense_features(batch_of(mirrored))["joint"]
    assert torch.allclose(a.flip(2), b, atol=1e-5)
    assert patchwise["s1"].shape == x["s1"].shape


@torch.no_grad()
def test_either_sensor_alone_is_encoded_as_beside_the_other():
    torch.manual_seed(0)
    system = system_of(Croma, TINY).eval()
    batch = batch_of(images())
    alone = {k: v for k, v in batch.items() if not k.startswith("s1")}
    assert set(system.features(alone)) == {"s2"}
    assert torch.allclose(system.encode(alone)["s2"], system.encode(batch)["s2"], atol=1e-6)
    assert set(system.encode(batch, "s1")) == {"s1"}
    with pytest.raises(InputError, match="there is no s1"):
        system.encode(alone, "s1")


def test_decoder_positions_are_those_of_mae():
    known = sincos_2d(2, 3, 8)  # patch (1, 2): column 2 in the first half, row 1 in the second
    omega = torch.tensor([1.0, 0.01])
    expected = torch.cat([(2 * omega).sin(), (2 * omega).cos(), omega.sin(), omega.cos()])
    assert torch.allclose(known[5], expected, atol=1e-6)


def test_terms_can_be_switched_off_and_an_objective_chosen():
    torch.manual_seed(0)
    batch = batch_of(images())
    alone = system_of(Croma, {**TINY, "contrast": 0.0})
    assert set(alone.losses(batch, alone.embed(batch))) == {"reconstruction"}
    plain = system_of(Croma, {**TINY, "reconstruction": 0.0})
    assert set(plain.losses(batch, plain.embed(batch))) == {"contrast"}
    other = system_of(Croma, {**TINY, "objective": "SigLIP()", "contrast": 0.5})
    assert set(other.losses(batch, other.embed(batch))) == {"siglip", "reconstruction"}
    assert other.loss_weights == {"siglip": 0.5, "reconstruction": 1.0}
    with pytest.raises(InputError, match="nothing is left to learn"):
        system_of(Croma, {**TINY, "reconstruction": 0.0, "contrast": 0.0})
    with pytest.raises(InputError, match="both sensors"):
        system_of(Croma, TINY, sensors=("s2",))
