"""The reduced checks of the systems' claims against their baselines, on the same data, split, steps and seeds."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from counterpoint.audio_speech.audio_sheet import AudioSheet
from counterpoint.audio_speech.configs import AudioSheetConfig, SheetDataConfig
from counterpoint.audio_speech.snippets import SnippetData, load_snippets
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.metrics import retrieval
from counterpoint.common.trainers import override
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import train_quietly

AUDIO_SHEET = Claim(
    name="audio-sheet-pretraining",
    statement="With 10 % of the snippet pairs, towers pretrained alone beat towers trained from scratch (small preset)",
    baseline="from scratch",
    method="pretrained",
    metric="MRR over 500 test pairs, mean of both directions",
    source="Carvalho, Washüttl, Widmer, ACM MMSys 2023",
    data="Bach chorales (music21), synthetic audio",
    effect=0.02,  # a fifth of what is found from scratch
)


UNIMODAL_STEPS, ALIGN_STEPS = 60, 80


def audio_sheet_arm(
    data: Path | None,
    arm: str,
    seed: int,
    *,
    unimodal_steps: int = UNIMODAL_STEPS,
    align_steps: int = ALIGN_STEPS,
    changes: dict[str, Any] | None = None,
    out: Path | None = None,
) -> float:
    """Does self-supervised pretraining of each tower help when few pairs are known? The MRR of one arm.

    Both arms see the same tenth of the pairs for the same number of cross-modal steps; the pretrained arm has before
    that looked at all unpaired snippets for `unimodal_steps` of each modality. A seed decides the initial weights, the
    batches, the augmentations and the split by tune. The steps of pretraining are extra compute, as in the paper.
    The chorales come with the music21 package, so `data` is not used. Runs are kept in `out` when it is given.
    """
    config = _arm(arm, seed, unimodal_steps, align_steps, changes or {})
    snippets = _snippets(config.data)
    kept = None if out is None else out / f"{arm.replace(' ', '-')}-{seed}"
    return _mrr(train_quietly(AudioSheet, config, seed, snippets, out=kept), snippets)


@lru_cache(maxsize=1)
def _snippets(config: SheetDataConfig) -> SnippetData:
    """Both arms of a seed have the same pieces."""
    return load_snippets(config)


def _arm(arm: str, seed: int, unimodal: int, align: int, changes: dict[str, Any]) -> AudioSheetConfig:
    steps = unimodal if arm == AUDIO_SHEET.method else 0
    config = override(AudioSheetConfig(), AudioSheetConfig.presets["small"])
    own = {
        "data.pairs_fraction": 0.1,
        "data.split_seed": seed,
        "train.max_steps": align,
        "sheet_stage.max_steps": steps,
        "sheet_stage.max_epochs": 0,
        "audio_stage.max_steps": steps,
        "audio_stage.max_epochs": 0,
    }
    return override(config, own | changes)


def _mrr(system: AudioSheet, data: SnippetData) -> float:
    vectors = encode_rows(system, data.test, batch_size=100).vectors
    both = retrieval(vectors["audio"], vectors["sheet"], ks=(1,), n_boot=0)
    return (both.a_to_b.metrics["MRR"] + both.b_to_a.metrics["MRR"]) / 2


CHECKS: dict[str, tuple[Claim, Callable[[Path | None, str, int], float]]] = {
    AUDIO_SHEET.name: (AUDIO_SHEET, audio_sheet_arm)
}
