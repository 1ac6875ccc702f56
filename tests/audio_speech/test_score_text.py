"""Music and its words: the words against the print, and ALBEF, TCL and CoCa trained, resumed, asked and judged."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback

from counterpoint.audio_speech.engrave import Engraving
from counterpoint.audio_speech.score_configs import ScoreCaptionConfig, ScoreTextConfig
from counterpoint.audio_speech.score_text import ScoreALBEF, ScoreCoCa, ScoreTCL, WordCut, WordedSnippets, note_words
from counterpoint.audio_speech.score_words import check_words, parse_words, printed_words
from counterpoint.audio_speech.transcribe import pitch_f1, protocols, transcription, word_errors
from counterpoint.common.data.vocabulary import MASK, WordVocabulary, mask_words
from counterpoint.common.errors import InputError
from counterpoint.common.losses import matching_loss
from counterpoint.common.models import CaptionDecoder
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import Assets, create_system, empty_system, fit, load_run, override

TINY = {
    "channels": [4, 4, 8, 8], "steps_per_epoch": 2,
    "net": {"width": 8, "heads": 2, "dim": 4, "picture_layers": 1, "text_layers": 1, "fusion_layers": 1, "queue": 16,
            "queries": 3},
    "train": {"batch_size": 8, "max_epochs": 2, "tensorboard": False, "accelerator": "cpu", "monitor_every": 0},
}  # fmt: skip
SYSTEMS = {"albef": ScoreALBEF, "tcl": ScoreTCL, "coca": ScoreCoCa}


def made(name, data, snippets, **changes):
    cls = SYSTEMS[name]
    config = override(override(cls.Config(), TINY), changes)
    return create_system(cls, replace(config, data=data), snippets)


class Dies(Callback):
    def on_train_batch_end(self, trainer, system, *_):
        if system.progress.total_step >= 2:
            raise ZeroDivisionError


def batch_of(system, rows=range(0, 48, 6)):
    train = system.datasets().train
    return train.collate([train[i] for i in rows])


# Words


def test_a_window_says_its_notes_once_from_the_top_with_steps_in_quarters():
    notes = np.array([[0, 1, 60, 10.0], [0, 1, 67, 10.0], [0.5, 1, 62, 20.0], [1, 2, 64, 30.0], [2, 3, 62, 20.0]])
    score = Engraving(np.zeros((4, 40), np.uint8), notes, np.array([0, 0, 1, 1.5, 1]))
    assert printed_words(score, 0, 25) == "G4 C4 +1 D4", "the repeated D stands once in the print"
    assert printed_words(score, 15, 40) == "D4 +1/2 E4"
    assert printed_words(score, 31, 40) == ""


@pytest.mark.parametrize("picture", ["sheet", "audio"])
def test_every_note_of_a_window_is_said_and_no_other(snippets, picture):
    data = snippets.train
    for index in (0, 17, 40):
        moment = data.moments[index]
        score = data.pieces[moment.piece].engraving
        time, column = score.onsets[moment.onset]
        if picture == "sheet":
            away, reach, unit = np.abs(score.notes[:, 3] - column), data.config.sheet_width / 2, 1.0
        else:
            unit = moment.rendition.tempo / data.config.spectrogram.frames_per_second
            away, reach = np.abs(score.notes[:, 0] - time), unit * data.config.frames / 2
        said = {w for w in note_words(data, index, picture).split() if not w.startswith("+")}
        names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
        inner, outer = (
            {f"{names[int(p) % 12]}{int(p) // 12 - 1}" for p in score.notes[away < reach + more, 2]}
            for more in (-unit, unit)
        )
        assert inner <= said <= outer


def test_words_of_a_user_are_checked():
    system = SimpleNamespace(assets=Assets(words=list(WordVocabulary.learn(["C4 +1 D4"]).words), length=5))
    assert parse_words("C4  +1 D4", "words", system)["words"].tolist() == [1, 6, 5, 7, 2]
    for text, said in (
        ("H4", "neither a pitch"), ("+0", "neither a pitch"), ("+a", "neither a pitch"), ("", "the text is empty"),
        ("C4 D4 C4 D4", "up to 3"), ("E4", "never has E4"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            parse_words(text, "words", system)
    with pytest.raises(InputError, match="has no words"):
        parse_words("C4", "words", SimpleNamespace(assets=Assets()))
    assert check_words("Bb4".replace("Bb", "A#")) == "A#4"


def test_masking_takes_words_only_and_hides_most_of_the_chosen():
    words = torch.randint(5, 30, (200, 30))
    words[:, 0], words[:, 20], words[:, 21:] = 1, 2, 0
    torch.manual_seed(0)
    masked, chosen = mask_words(words, 30, 0.15)
    assert not chosen[words < 5].any()
    assert torch.equal(masked[~chosen], words[~chosen])
    assert chosen[words >= 5].float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert (masked[chosen] == MASK).float().mean().item() == pytest.approx(0.8, abs=0.05)
    assert (masked[chosen] == words[chosen]).float().mean().item() == pytest.approx(0.1 + 0.1 / 25, abs=0.05)


# The systems


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("picture", ["sheet", "audio"])
def test_all_that_is_no_momentum_model_learns(small_data, snippets, name, picture):
    system = made(name, small_data, snippets, picture=picture).train()
    assert system.modalities == (picture, "words")
    batch = batch_of(system)
    terms = system.losses(batch, system.embed(batch))
    assert set(terms) == ({"coca"} if name == "coca" else {"itc", "itm", "mlm"})
    sum(terms.values()).backward()
    assert [n for n, p in system.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad is None for n, p in system.named_parameters() if n.startswith("teacher."))


@pytest.mark.parametrize("name", ["albef", pytest.param("tcl", marks=pytest.mark.slow), "coca"])
def test_a_run_resumes_bit_by_bit_loads_and_embeds_either_side(small_data, snippets, tmp_path, name):
    whole = made(name, small_data, snippets, train={"out": str(tmp_path / "whole")})
    result = fit(whole)
    assert math.isfinite(result.metrics["val/loss"])
    assert "val/words->sheet/R@10" in result.metrics
    part = made(name, small_data, snippets, train={"out": str(tmp_path / "part"), "checkpoint_every_steps": 1})
    with pytest.raises(ZeroDivisionError):
        fit(part, callbacks=[Dies()])
    fit(empty_system(tmp_path / "part").use(snippets), resume=tmp_path / "part")
    part = load_run(tmp_path / "part", "last").state_dict()
    assert all(torch.equal(value, part[key]) for key, value in whole.state_dict().items())
    loaded = load_run(result.run_dir, "last").use(snippets)
    for key, value in whole.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    batch = batch_of(whole.eval())
    one = loaded.eval().encode({"words": batch["words"]})
    assert list(one) == ["words"]
    torch.testing.assert_close(one["words"], whole.encode(batch)["words"])
    torch.testing.assert_close(one["words"].norm(dim=1), torch.ones(8))


def test_matching_holds_true_pairs_against_others_than_performances_of_the_same_place(small_data, snippets):
    """With one place alone nothing is wrong, and the term is that of true pairs."""
    system = made("albef", small_data, snippets).eval()
    batch = batch_of(system)
    batch["moment"] = torch.zeros(8, dtype=torch.int64)
    embeddings = system.embed(batch)
    fused = system.student.mix(embeddings["states"], batch["words"], embeddings["places"])[:, 0]
    no, yes = system.matching(fused).unbind(-1)
    torch.testing.assert_close(system._matched(batch, embeddings), matching_loss(yes - no, yes[:0]))


def test_the_targets_of_the_momentum_model_come_with_the_first_epoch(small_data, snippets):
    system = made("albef", small_data, snippets)
    system.total_steps, system.epochs = 40, 4
    found = []
    for step in (0, 5, 10, 30):
        system.progress.total_step = step
        found.append(system.alpha)
    assert found == pytest.approx([0.0, 0.2, 0.4, 0.4])


def test_no_word_of_a_caption_sees_those_behind_it_and_the_sum_sees_all():
    torch.manual_seed(0)
    decoder, context = CaptionDecoder(12, 6, 8, 8, 1, 1, 2).eval(), torch.randn(1, 3, 8)
    words = torch.tensor([[1, 5, 6, 7, 2, 0]])
    other = torch.tensor([[1, 5, 6, 9, 2, 0]])
    (a, whole), (b, changed) = decoder.text(words), decoder.text(other)
    before, after = decoder.logits(a, context), decoder.logits(b, context)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3], after[:, 3])
    assert not torch.allclose(whole, changed)
    padded = torch.tensor([[1, 5, 6, 7, 2]])
    torch.testing.assert_close(decoder.text(padded)[1], whole)


@pytest.mark.slow
def test_coca_learns_to_say_a_handful_of_snippets_by_heart(small_data, snippets):
    torch.manual_seed(0)
    system = made("coca", small_data, snippets, net={"width": 32, "heads": 4}, channels=[8, 8, 16, 16])
    cut = WordCut("sheet", system.vocabulary, system.length)
    samples = WordedSnippets(replace_margins(snippets.train), cut)
    batch = samples.collate([samples[i] for i in (0, 30, 60, 90)])
    optimizer = torch.optim.Adam(system.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        system.losses(batch, system.train().embed(batch))["coca"].backward()
        optimizer.step()
    said = system.eval().captions(batch)
    assert sum(pitch_f1(a, b) for a, b in zip(said, batch["text"])) / 4 > 0.8
    assert len(set(said)) == 4


def replace_margins(train):
    return type(train)(train.pieces, train.tunes, train.moments, train.config, False, ("sheet",))


def test_transcriptions_are_judged_beside_those_of_other_tunes(small_data, snippets):
    assert word_errors("", "C4 +1 D4") == 1
    assert word_errors("C4 +1 D4", "C4 +1 D4") == 0
    made_up = transcription(["C4", "D4"], ["C4", "D4"], ["a", "b"], name="sheet", n_boot=5, seed=0)
    assert made_up.metrics == {"pitch F1": 1.0, "word error rate": 0.0}
    assert made_up.chance == {"pitch F1": 0.0, "word error rate": 1.0}
    system = made("coca", small_data, snippets)
    run = OpenRun(system, {"test": system.datasets().test}, limit=6, batch_size=4)
    found = protocols(run)["transcription of sheet"]
    assert found.snippets == 6
    assert "another snippet" in str(found)


def test_the_papers_sizes_are_the_defaults():
    net = ScoreTextConfig().net
    assert (net.width, net.heads, net.dim, net.picture_layers, net.text_layers, net.fusion_layers) == (
        768, 12, 256, 12, 6, 6
    )  # fmt: skip
    assert (net.queue, net.momentum, net.alpha, net.masked) == (65_536, 0.995, 0.4, 0.15)
    assert (ScoreCaptionConfig().net.queries, ScoreCaptionConfig().net.caption_weight) == (256, 2.0)
