"""M3AE: its three losses and all of their gradients are those of the released code; sizes; a run that resumes."""

import json
import os
import signal
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, create_system, fit, load_run, override
from counterpoint.medical.commands import simulate
from counterpoint.medical.m3ae import M3AE, masked_patch_loss, whole_words
from counterpoint.medical.radiograph_configs import M3AEConfig
from counterpoint.medical.tokens import MASK, PAD, ReportTokenizer, learn_tokenizer

RELEASED = json.loads((Path(__file__).parent / "m3ae_released.json").read_text())
WORDS = "\n".join("abcdefgh")
ATTENTION = {"query": "self.query", "key": "self.key", "value": "self.value", "out": "output.dense",
             "norm": "output.LayerNorm"}  # fmt: skip
FEED = {"up": "intermediate.dense", "down": "output.dense", "norm": "output.LayerNorm"}
BLOCK = {"up": "mlp.c_fc", "down": "mlp.c_proj"}
FUSION = {"report": "multi_modal_language_proj", "xr": "multi_modal_vision_proj", "kinds": "modality_type_embeddings",
          "report_pooler": "multi_modal_language_pooler.dense", "xr_pooler": "multi_modal_vision_pooler.dense",
          "report_layers": "multi_modal_language_layers", "xr_layers": "multi_modal_vision_layers"}  # fmt: skip
TOPS = {"xr.conv": "vision_encoder.visual.conv1", "xr.cls": "vision_encoder.visual.class_embedding",
        "xr.places": "vision_encoder.visual.positional_embedding", "xr.ln_": "vision_encoder.visual.ln_",
        "report.pieces": "language_encoder.embeddings.word_embeddings",
        "report.places": "language_encoder.embeddings.position_embeddings",
        "report.kind": "language_encoder.embeddings.token_type_embeddings.weight",
        "report.norm": "language_encoder.embeddings.LayerNorm",
        "predict.dense": "mlm_head.transform.dense", "predict.norm": "mlm_head.transform.LayerNorm",
        "predict.out.weight": "mlm_head.decoder.weight", "predict.out.bias": "mlm_head.bias", "match": "itm_head.fc",
        "restore.embed": "mim_head.decoder_embed", "restore.mask_token": "mim_head.mask_token",
        "restore.norm": "mim_head.decoder_norm", "restore.out": "mim_head.decoder_pred"}  # fmt: skip
LAYERS = {"xr.layers": "vision_encoder.visual.transformer.resblocks", "restore.layers": "mim_head.decoder.resblocks",
          "report.layers": "language_encoder.encoder.layer"}  # fmt: skip


def released_name(name):
    """What the released code calls a parameter."""
    parts = name.split(".")
    where = ".".join(parts[:2])
    if where in ("xr.layers", "restore.layers"):
        return ".".join([LAYERS[where], parts[2], BLOCK.get(parts[3], parts[3]), *parts[4:]])
    if where == "report.layers" or where in ("fusion.report_layers", "fusion.xr_layers"):
        top = LAYERS.get(where) or FUSION[parts[1]]
        if parts[3] == "feed":
            return ".".join([top, parts[2], FEED[parts[4]], parts[5]])
        kind = {"attention": "attention", "cross": "crossattention"}[parts[3]]
        return ".".join([top, parts[2], kind, ATTENTION[parts[4]], parts[5]])
    if parts[0] == "fusion":
        return ".".join([FUSION[parts[1]], *parts[2:]])
    start = max((t for t in TOPS if name.startswith(t)), key=len)
    return TOPS[start] + name[len(start) :]


def filled(name, shape):
    count = int(torch.tensor(shape).prod())
    start = zlib.crc32(name.encode()) % 1000
    return 0.3 * torch.sin(1.7 * torch.arange(count, dtype=torch.float64) + start).reshape(shape)


@pytest.fixture(scope="module")
def system():
    c = RELEASED["config"]
    changes = {
        "data.recipe.size": c["image_size"], "data.tokens": c["max_text_len"], "patch": c["patch_size"],
        "picture_width": 8, "picture_layers": c["vision_layers"] - 1, "picture_heads": c["vision_heads"],
        "text": {"width": 8, "layers": c["text_layers"], "heads": 2, "dropout": 0.0}, "width": 8, "heads": 2,
        "fusion_layers": c["num_top_layer"], "dropout": 0.0, "mim_layer": c["mim_layer"], "decoder_width": 8,
        "decoder_layers": c["mim_decoder_num_layers"], "decoder_heads": 2,
    }  # fmt: skip
    made = M3AE(override(M3AEConfig(), changes), Assets(**{"tokenizer.json": vocabulary(c["vocab_size"])})).double()
    for name, parameter in made.named_parameters():
        parameter.data = filled(released_name(name), parameter.shape)
    # In double precision from the start: single loses digits of the constants.
    made.mean, made.spread = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)))  # fmt: skip
    made.restore.places = places(8, 4)
    return made.eval()


def places(width, grid):
    """Sine places in double precision, by their equation."""
    out = torch.zeros(grid * grid + 1, width, dtype=torch.float64)
    for row in range(grid):
        for column in range(grid):
            waves = []
            for at in (column, row):
                angles = [at / 10000 ** (k / (width / 4)) for k in range(width // 4)]
                waves += torch.tensor(angles, dtype=torch.float64).sin().tolist()
                waves += torch.tensor(angles, dtype=torch.float64).cos().tolist()
            out[1 + row * grid + column] = torch.tensor(waves, dtype=torch.float64)
    return out


def vocabulary(size):
    """A tokenizer of `size` pieces."""
    from tokenizers import Tokenizer, models

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(size - 5))]
    return Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")).to_str().encode()


def terms_of(system):
    tokens, shown = (torch.tensor(RELEASED[name]) for name in ("tokens", "shown"))
    count, size = len(tokens), RELEASED["config"]["image_size"]
    steps = torch.arange(count * size * size, dtype=torch.float64)
    xr, other = ((0.5 + 0.5 * wave).reshape(count, size, size) for wave in ((0.37 * steps).sin(), (0.23 * steps).cos()))
    asked = torch.tensor(RELEASED["asked"]).bool()
    words, seen, kept = system.read_words(tokens), system.see(xr), tokens != PAD
    noise = torch.tensor(RELEASED["noise"], dtype=torch.float64)
    belong = torch.tensor(RELEASED["belong"]).bool()
    return {
        "mlm": system.mlm_loss(shown, asked, tokens, seen), "mim": system.mim_loss(xr, noise, words, kept),
        "itm": system.itm_loss(belong, other, words, seen, kept),
    }  # fmt: skip


@pytest.mark.parametrize("term", ["mlm", "mim", "itm"])
def test_loss_and_every_gradient_are_those_of_the_released_code(system, term):
    system.zero_grad()
    loss = terms_of(system)[term]
    loss.backward()
    assert loss.item() == pytest.approx(RELEASED["losses"][term], rel=1e-8)
    found = {
        released_name(n): float((p.grad * filled(f"grad {released_name(n)}", p.shape)).sum())
        for n, p in system.named_parameters()
        if p.grad is not None
    }
    known = {name: value for name, value in RELEASED["grads"][term].items() if name in found or value != 0}
    assert found.keys() >= known.keys()
    for name, value in found.items():
        assert value == pytest.approx(RELEASED["grads"][term].get(name, 0.0), rel=1e-6, abs=1e-9), name


def test_the_sizes_are_those_of_the_released_script():
    """CLIP's 11 blocks, a text tower of RoBERTa's blocks, six co-attention blocks a stream, three heads."""
    config = override(M3AEConfig(), {})
    with torch.device("meta"):
        made = M3AE(config, Assets(**{"tokenizer.json": vocabulary(1000)}))
    found = {name: sum(p.numel() for p in part.parameters()) for name, part in made.named_children()}
    assert found == RELEASED["sizes"]


def test_only_the_patches_taken_away_count():
    g = torch.Generator().manual_seed(0)
    made, target = torch.randn(2, 5, 6, generator=g), torch.randn(2, 5, 6, generator=g)
    asked = torch.rand(2, 5, generator=g) < 0.5
    changed = torch.where(asked[..., None], made, made + 7)
    assert masked_patch_loss(made, target, asked) == masked_patch_loss(changed, target, asked)
    scaled = masked_patch_loss(made.double(), 3 * target.double() + 1, asked)
    assert float(scaled) == pytest.approx(float(masked_patch_loss(made.double(), target.double(), asked)), rel=1e-5)


def test_words_are_masked_whole_and_special_pieces_never():
    texts = ["cardiomegaly effusion nodule", "the nodule cardio"] * 2
    tokenizer = ReportTokenizer(learn_tokenizer(texts, 120))
    tokens = tokenizer(["effusion zeffusionx nodule cardiomegaly no nodule"] * 300, 40)
    starts = tokenizer.word_starts()
    torch.manual_seed(0)
    shown, asked = whole_words(tokens, starts, len(tokenizer), 0.3)
    assert not asked[tokens < 5].any()
    assert torch.equal(shown[~asked], tokens[~asked])
    inside = ~starts[tokens] & (tokens != PAD)
    assert torch.equal(asked[:, 1:][inside[:, 1:]], asked[:, :-1][inside[:, 1:]])
    count = int((tokens[0] >= 5).sum())
    assert (asked.sum(1) <= max(1, round(0.3 * count))).all()
    share = (shown[asked] == MASK).float().mean()
    assert float(share) == pytest.approx(0.8, abs=0.05)


TINY = {
    "data.recipe": {"size": 24, "fit": "pad"}, "data.tokens": 48, "data.workers": 1, "patch": 8, "picture_width": 16,
    "picture_layers": 1, "picture_heads": 2, "text": {"width": 16, "layers": 1, "heads": 2}, "width": 16, "heads": 2,
    "fusion_layers": 2, "mim_layer": 1, "decoder_width": 8, "decoder_layers": 1, "decoder_heads": 2,
    "train.batch_size": 6, "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
    "train.max_steps": 4, "train.checkpoint_every_steps": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat")
    return simulate(folder, 12, 6, 8, size=24, spacing=14.0, workers=1, kind="radiographs").manifest


def trained(flat, out):
    fit(create_system(M3AE, override(M3AEConfig(), TINY | {"data.manifest": str(flat), "train.out": str(out)})))


def test_a_killed_run_goes_on_bit_for_bit_and_embeds(flat, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path / "cache"))
    trained(flat, tmp_path / "whole")
    pid = os.fork()
    if not pid:
        real = M3AE.training_step

        def dying(self, batch, batch_idx):
            if self.progress.total_step == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, batch, batch_idx)

        M3AE.training_step = dying
        trained(flat, tmp_path / "run")
        os._exit(0)
    os.waitpid(pid, 0)
    fit(load_run(tmp_path / "run", "last"), resume=tmp_path / "run")
    a, b = (load_file(tmp_path / n / "checkpoints/last/model.safetensors") for n in ("whole", "run"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    system = load_run(tmp_path / "run", "last").eval()
    sample = system.evaluation_datasets().test[0]
    assert "other" not in sample
    with torch.no_grad():
        assert system.encode({"xr": sample["xr"][None]}, "xr")["xr"].norm() == pytest.approx(1, abs=1e-5)


def test_the_other_picture_is_another_patients_with_another_report(flat, tmp_path, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path))
    system = create_system(M3AE, override(M3AEConfig(), TINY | {"data.manifest": str(flat)}))
    train = system.datasets().train
    pictures = {row["xr"].numpy().tobytes(): row for row in (train[i] for i in range(len(train)))}
    for i in range(len(train)):
        row = train[i]
        other = pictures[row["other"].numpy().tobytes()]
        assert other["group"] != row["group"]
        assert other["text"].lower() != row["text"].lower()


def test_cached_gradients_are_refused():
    config = override(M3AEConfig(), {"train.micro_batch_size": 2})
    with pytest.raises(InputError, match="micro_batch_size"):
        M3AE(config, Assets(**{"tokenizer.json": vocabulary(20)}))
