"""Music and its words: ALBEF, TCL and CoCa over printed snippets or spectrograms (`picture`) and the notes in them.

A picture is seen by convolutions as audio-sheet's (`models.py: VGGTower`, where the papers have a ViT of patches); its
words are the notes of the window, as `score_words.py` says them. CoCa's caption is a transcription.

The methods and their equations: common/trainers/image_text.py.

Where its terms stand:

    ALBEF: ITC, momentum  common/losses/albef.py: ALBEFContrast
    ALBEF, TCL: ITM, MLM  common/losses/albef.py: hard_negatives, matching_loss, masked_lm_loss
    TCL: six terms        common/losses/tcl.py: TCL, LocalMI
    CoCa: both terms      common/losses/coca.py: CoCa
    layers that fuse      common/models/fusion.py: FusionEncoder, AttentionalPooler, CaptionDecoder
    training              common/trainers/image_text.py: ALBEFSystem, TCLSystem, CoCaSystem
    words of notes        audio_speech/score_words.py: played_words, printed_words
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.audio_speech.audio_sheet import AUDIO, SHEET, ShortEpochs
from counterpoint.audio_speech.augment import audio_view, sheet_view
from counterpoint.audio_speech.features import log_filterbank
from counterpoint.audio_speech.models import VGGTower
from counterpoint.audio_speech.score_configs import ScoreCaptionConfig, ScoreTextConfig
from counterpoint.audio_speech.score_words import played_words, printed_words
from counterpoint.audio_speech.snippets import SnippetData, SnippetDataset, load_snippets
from counterpoint.common.data.samplers import BatchSampler
from counterpoint.common.data.samples import options_hash
from counterpoint.common.data.vocabulary import WordVocabulary
from counterpoint.common.trainers import Assets, Datasets
from counterpoint.common.trainers.image_text import ALBEFSystem, CoCaSystem, ImageText, TCLSystem
from counterpoint.common.trainers.inputs import Input

WORDS = Input(
    "int64 numbers of words in `assets.words`: <start>, then the notes of the window as `score_words.py` says them "
    "(pitches that sound, from the top down, then `+step` in quarters), <end>, 0 up to `assets.length`; what is longer "
    "is cut, an unknown word is <unknown>.",
    ("length",),
)


@dataclass(frozen=True)
class WordCut:
    """What words a snippet has: those of `picture`, numbered by `vocabulary` in `length` places."""

    picture: str
    vocabulary: WordVocabulary
    length: int


class WordedSnippets(SnippetDataset):
    """Snippets of one modality with `text`, the words of their notes, and `words`, the numbers of these."""

    def __init__(self, of: SnippetDataset, cut: WordCut) -> None:
        margins = of.sheet_margin > 0
        super().__init__(of.pieces, of.tunes, of.moments, of.config, margins, (cut.picture,), of.rows, of.left_out)
        self.cut = cut

    def __getitem__(self, index: int) -> dict:
        text = note_words(self, index, self.cut.picture)
        return super().__getitem__(index) | {"text": text, "words": self.cut.vocabulary.encode(text, self.cut.length)}

    @cached_property
    def hash(self) -> str:
        return options_hash(super().hash, picture=self.cut.picture, words=self.cut.vocabulary.words, n=self.cut.length)


def note_words(snippets: SnippetDataset, index: int, picture: str) -> str:
    """The words of a snippet: the notes printed in its strip's window, or struck in its sound's."""
    moment, config = snippets.moments[index], snippets.config
    engraving = snippets.pieces[moment.piece].engraving
    time, column = engraving.onsets[moment.onset]
    if picture == "sheet":
        first = round(column) - config.sheet_width // 2
        return printed_words(engraving, first, first + config.sheet_width)
    rate = config.spectrogram.frames_per_second
    first = round(time / moment.rendition.tempo * rate) - config.frames // 2
    begin, end = (frame / rate * moment.rendition.tempo for frame in (first, first + config.frames))
    return played_words(engraving, begin, end)


class _ScoreText(ImageText):
    """The vertical's part of the three systems."""

    Config = ScoreTextConfig
    presets = ScoreTextConfig.presets
    config: ScoreTextConfig

    def __init__(self, config: ScoreTextConfig, assets: Assets) -> None:
        data, tower = config.data, VGGTower(config.channels, config.channels[-1])
        size = (data.engraving.height // 2, data.sheet_width // 2)
        if config.picture == "audio":
            size = (data.frames, log_filterbank(data.spectrogram).shape[1])
        places = (size[0] >> len(config.channels)) * (size[1] >> len(config.channels))
        super().__init__(config, assets, config.picture, tower, (places, config.channels[-1]))
        self.inputs = (
            {"sheet": SHEET, "words": WORDS} if config.picture == "sheet" else {"audio": AUDIO, "words": WORDS}
        )

    @classmethod
    def read(cls, config: ScoreTextConfig, assets: Assets | None = None) -> SnippetData:
        """Pieces and snippets, rendered."""
        return load_snippets(config.data, config.train.on_error, config.train.max_bad)

    @classmethod
    def learn(cls, config: ScoreTextConfig, data: SnippetData) -> Assets:
        """The words of the training snippets, and the length of the longest text."""
        texts = [note_words(data.pairs, i, config.picture) for i in range(len(data.pairs))]
        longest = max(len(text.split()) for text in texts)
        return Assets(words=list(WordVocabulary.learn(texts).words), length=longest + 2)

    def datasets(self) -> Datasets:
        cut = WordCut(self.config.picture, self.vocabulary, self.length)
        data = self.data
        return Datasets(*(WordedSnippets(part, cut) for part in (data.pairs, data.val, data.test)))

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        return ShortEpochs(len(dataset), batch_size, seed, self.config.steps_per_epoch)

    def same(self, batch: Mapping[str, Any]) -> Int[Tensor, " batch"] | None:
        """Performances of one printed place are no negatives of one another."""
        return batch.get("moment")

    def places(self, batch: Mapping[str, Any], tower: nn.Module, augment: bool) -> Float[Tensor, "batch places width"]:
        data = self.config.data
        if self.picture == "sheet":
            how = self.config.sheet_view if augment else None
            return tower.tokens(sheet_view(batch["sheet"], data.sheet_width, how))
        return tower.tokens(
            audio_view(batch["audio"].float(), data.frames, self.config.audio_view if augment else None)
        )


class ScoreALBEF(_ScoreText, ALBEFSystem):
    """ALBEF over pictures of music and the words of its notes."""


class ScoreTCL(_ScoreText, TCLSystem):
    """TCL over pictures of music and the words of its notes."""


class ScoreCoCa(_ScoreText, CoCaSystem):
    """CoCa over pictures of music and the words of its notes: its captions are transcriptions."""

    Config = ScoreCaptionConfig
    presets = ScoreCaptionConfig.presets
