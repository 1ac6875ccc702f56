"""VELVET-Med in our reading: its terms by their equations, TriBERT's masks, every term alone, both networks."""

import pytest
import torch
from torch.nn import functional as F

from counterpoint.common.errors import InputError
from counterpoint.common.losses import InfoNCE
from counterpoint.common.trainers import create_system, fit, override
from counterpoint.medical.commands import simulate
from counterpoint.medical.configs import TriBERTConfig, VelvetMedConfig
from counterpoint.medical.local_contrast import local_scores, score_contrast
from counterpoint.medical.taps import SwinTaps
from counterpoint.medical.tokens import MASK, ReportTokenizer, content_pieces, learn_tokenizer
from counterpoint.medical.tribert import TriBERT
from counterpoint.medical.velvet_med import VelvetMed, block_mask, masked_volume_loss, masked_words

TINY = {
    "data.recipe": {"spacing": [14.0, 14.0, 14.0], "size": [24, 24, 24]}, "data.tokens": 80, "data.workers": 1,
    "encoder": "conv", "channels": [4, 6, 8], "dim": 12, "mask_block": 6, "queries": 3,
    "text": {"width": 16, "heads": 2, "layers": [1, 1, 1], "dropout": 0.0}, "train.batch_size": 6,
    "train.precision": "32-true", "train.tensorboard": False, "train.accelerator": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms")
    return simulate(folder, volumes=12, val=6, test=6, size=24, spacing=14.0, workers=1).manifest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("COUNTERPOINT_CACHE", str(tmp_path_factory.getbasetemp() / "velvet-cache"))


def made(phantoms, **changes):
    return create_system(VelvetMed, override(VelvetMedConfig(), TINY | {"data.manifest": str(phantoms)} | changes))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_with_one_sentence_and_one_region_the_local_contrast_is_infonce():
    t, v = draw(5, 8), draw(5, 8, seed=1)
    scores = local_scores(t[:, None], torch.ones(5, 1, dtype=torch.bool), v[:, None])
    found = score_contrast(scores, 1 / 0.07, torch.eye(5))
    assert torch.allclose(found.mean(), InfoNCE(0.07)(v, t), atol=1e-5)


def test_local_scores_are_the_written_loops():
    t, v, mask = draw(3, 4, 6), draw(2, 5, 6, seed=1), torch.rand(3, 4) < 0.7
    mask[:, 0] = True
    n = F.normalize
    found = local_scores(t, mask, v, 0.25, 0.2)
    for m in range(2):
        for k in range(3):
            parts = []
            for i in range(4):
                if mask[k, i]:
                    s = n(t[k, i], dim=-1) @ n(v[m], dim=-1).T
                    looked = torch.softmax(s / 0.25, 0) @ n(v[m], dim=-1)  # the place that the part looks at
                    parts.append(n(t[k, i], dim=-1) @ looked)
            a = torch.stack(parts)
            assert found[m, k] == pytest.approx(float(0.2 * torch.log(torch.exp(a / 0.2).mean())), abs=1e-5)


def test_the_order_of_sentences_and_masked_ones_do_not_count_and_empty_reports_have_no_gradient():
    t, v = draw(3, 4, 6).requires_grad_(), draw(3, 5, 6, seed=1)
    mask = torch.tensor([[True, True, True, False], [True, True, False, False], [False] * 4])
    a = local_scores(t, mask, v)
    order = [2, 0, 1, 3]
    assert torch.allclose(a[:, 0], local_scores(t[:, order], mask, v)[:, 0], atol=1e-6)
    a.sum().backward()
    assert torch.isfinite(t.grad).all()
    assert (t.grad[0, 3] == 0).all()
    assert (t.grad[2] == 0).all()
    assert (a[:, 2] == 0).all()


def test_equal_reports_share_their_target():
    scores = draw(4, 4)
    codes = torch.tensor([0, 1, 0, 2])
    same = (codes[:, None] == codes[None]).float()
    target = same / same.sum(1, keepdim=True)
    found = score_contrast(scores, 2.0, target)
    expected = (F.cross_entropy(2 * scores, target, reduction="none") +
                F.cross_entropy(2 * scores.T, target, reduction="none")) / 2  # fmt: skip
    assert torch.allclose(found, expected, atol=1e-6)


def changed_words(tower, tokens, sentence_of, position):
    """Which words, sentences and whether the report hear of a changed word, stage by stage."""
    other = tokens.clone()
    other[0, position] = 9
    with torch.no_grad():
        a, b = tower(tokens, sentence_of), tower(other, sentence_of)
    words = (a.words - b.words).abs().amax(-1)[0] > 1e-7
    sentences = (a.sentences - b.sentences).abs().amax(-1)[0] > 1e-7
    return words.tolist(), sentences.tolist(), bool((a.report - b.report).abs().max() > 1e-7)


@pytest.mark.parametrize(
    ("layers", "words", "sentences"),
    [
        ((2, 0, 0), [True, True, False, False, False], [False, False, False]),  # only words of the same sentence
        ((0, 1, 0), [True, True, False, False, False], [True, False, False]),  # its own [SENT]
        ((0, 2, 0), [True, True, False, False, False], [True, True, False]),  # then the other [SENT]
        ((0, 3, 0), [True, True, True, True, False], [True, True, False]),  # and by it the other sentence's words
    ],
)
def test_a_word_is_heard_only_where_its_stage_lets_it(layers, words, sentences):
    torch.manual_seed(0)
    config = TriBERTConfig(width=16, heads=2, layers=layers, dropout=0.0)
    tower = TriBERT(12, 6, 3, config).eval()
    tokens, sentence_of = torch.tensor([[2, 5, 6, 7, 0, 0]]), torch.tensor([[0, 0, 1, 1, -1, -1]])
    found = changed_words(tower, tokens, sentence_of, 1)
    assert found[0] == words[: len(found[0])]
    assert found[1] == sentences
    assert not found[2]  # [REP] joins in the third stage


def test_the_report_hears_every_word_and_no_padding():
    torch.manual_seed(0)
    tower = TriBERT(12, 8, 3, TriBERTConfig(width=16, heads=2, layers=(1, 1, 1), dropout=0.0)).eval()
    tokens, sentence_of = torch.tensor([[2, 5, 6, 7, 0, 0]]), torch.tensor([[0, 0, 1, 1, -1, -1]])
    assert changed_words(tower, tokens, sentence_of, 3)[2]
    longer = torch.cat([tokens, torch.tensor([[0, 0]])], 1), torch.cat([sentence_of, torch.tensor([[-1, -1]])], 1)
    both = torch.tensor([[2, 5, 6, 7, 0, 0], [2, 4, 4, 4, 4, 4]]), torch.tensor([[0, 0, 1, 1, -1, -1], [0] * 6])
    with torch.no_grad():
        alone = tower(tokens, sentence_of).report[0]
        assert torch.allclose(alone, tower(*longer).report[0], atol=1e-6)
        assert torch.allclose(alone, tower(*both).report[0], atol=1e-6)


def test_the_masked_volume_term_counts_covered_voxels_alone_and_each_at_its_place():
    shown = draw(2, 3, 8, 8, 8)
    covered = block_mask((2, 8, 8, 8), 4, 0.5)
    s, grid = 4, 2
    # The prediction that puts every voxel where it belongs: [windows, s, s, s] at each place of the map.
    perfect = shown.view(2, 3, grid, s, grid, s, grid, s).permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(2, 3 * s**3, 2, 2, 2)
    assert masked_volume_loss(perfect, shown, covered, s).tolist() == [0.0, 0.0]
    elsewhere = shown + 100.0 * ~covered[:, None]
    assert masked_volume_loss(perfect, elsewhere, covered, s).tolist() == [0.0, 0.0]
    off = masked_volume_loss(perfect, shown + 0.5 * covered[:, None], covered, s)
    assert off.tolist() == pytest.approx([0.5, 0.5])


def test_blocks_are_drawn_in_the_share_asked_for():
    covered = block_mask((3, 20, 20, 20), 5, 0.6)
    assert covered.float().mean((1, 2, 3)).tolist() == pytest.approx([38 / 64] * 3)
    assert not torch.equal(covered[0], covered[1])
    blocks = covered.view(3, 4, 5, 4, 5, 4, 5).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    assert (blocks.float().mean(-1) % 1 == 0).all()


def test_masked_words_are_fifteen_in_a_hundred_and_never_special():
    torch.manual_seed(0)
    tokens = torch.randint(5, 50, (200, 100))
    tokens[:, 0], tokens[:, -10:] = 2, 0
    shown, asked = masked_words(tokens, 50, 0.15)
    assert not asked[:, 0].any()
    assert not asked[:, -10:].any()
    assert float(asked[:, 1:-10].float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((shown[asked] == MASK).float().mean()) == pytest.approx(0.8, abs=0.02)
    assert float((shown[asked] == tokens[asked]).float().mean()) == pytest.approx(0.1, abs=0.03)
    assert torch.equal(shown[~asked], tokens[~asked])


def test_words_that_mean_something():
    tokenizer = ReportTokenizer(learn_tokenizer(["The left nodule of 12 mm, no effusion."] * 2))
    kept = content_pieces(tokenizer)
    meant = [w for w in ("the", "left", "nodule", "of", "12", "mm", ",", "no", "effusion", ".")
             if kept[tokenizer.ids(w)].all()]  # fmt: skip
    assert meant == ["left", "nodule", "no", "effusion"]


@pytest.mark.parametrize("term", ["report", "sentence", "word", "mim", "mlm"])
def test_every_term_works_alone_and_reaches_the_networks_that_it_is_about(phantoms, term):
    weights = {name: float(name == term) for name in ("report", "sentence", "word", "mim", "mlm")}
    system = made(phantoms, weights=weights).train()
    data = system.datasets().train
    batch = data.collate([data[i] for i in range(6)])
    terms = system.losses(batch, system.embed(batch))
    assert list(terms) == [term]
    terms[term].mean().backward()

    def reached(part):
        return any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())

    assert reached(system.ct) == (term != "mlm")
    assert reached(system.report) == (term != "mim")


def test_without_any_term_nothing_is_trained_and_that_is_said(phantoms):
    with pytest.raises(InputError, match="nothing to learn"):
        made(phantoms, weights=dict.fromkeys(("report", "sentence", "word", "mim", "mlm"), 0.0))
    with pytest.raises(InputError, match="micro_batch_size"):
        made(phantoms, **{"train.micro_batch_size": 2})


def test_it_trains_and_records_every_term(phantoms, tmp_path):
    system = made(phantoms, **{"train.out": str(tmp_path / "r"), "train.max_steps": 12, "optim.lr": 5e-3,
                               "train.log_every": 1, "shift": 0})  # fmt: skip
    run = fit(system).run_dir
    lines = (run / "metrics.csv").read_text().splitlines()
    assert all(term in lines[0] for term in ("report", "sentence", "word", "mim", "mlm"))
    assert (run / "checkpoints").is_dir()


@pytest.mark.slow
def test_the_swin_network_is_read_at_its_three_levels():
    taps = SwinTaps(((0.0, 100.0),), 12, 4)
    found = taps(torch.randn(1, 1, 64, 64, 64))
    assert found.patch_map.shape == (1, 48, 8, 8, 8)
    assert found.region.shape == (1, 4, 96)
    assert found.volume.shape == (1, 192)
    with pytest.raises(InputError, match="needs 64 voxels"):
        taps(torch.randn(1, 1, 48, 64, 64))
