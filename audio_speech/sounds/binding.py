"""Does an encoder of sounds and words hear which sound comes first, and which of them is the high one?

In the form of CompA (Ghosh et al., ICLR 2024): two scenes whose sounds are the same and whose captions have the same
words, in another order. The scenes are synthetic, of combinations that no training scene of the generator has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from counterpoint.audio_speech.features import resample_wave
from counterpoint.audio_speech.sounds.samples import fixed_length
from counterpoint.audio_speech.sounds.scenes import RATE, SAID, SECONDS, Event, draw_events, play_scene, scene_caption
from counterpoint.common.data import ListSamples
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.metrics.result import NotRun, Result
from counterpoint.common.metrics.winoground import winoground
from counterpoint.common.runs.opened import OpenRun

PAIRS = 200
SEED = 977
TASKS = ("order", "attribute")


def swapped(rng: np.random.Generator, task: str) -> tuple[list[Event], list[Event], str]:
    """Two scenes that differ by one swap, and their order: sounds exchanged (`order`) or their pitches (`attribute`).

    >>> first, second, order = swapped(np.random.default_rng(0), "attribute")
    >>> [e.kind for e in first] == [e.kind for e in second], first[0].pitch == second[1].pitch, order
    (True, True, 'and')
    """
    one, other = draw_events(rng, held_out=True, least=2)
    if task == "order":
        return [one, other], [other, one], "before"
    high, low = replace(one, pitch="high"), replace(other, pitch="low")
    return [high, low], [replace(one, pitch="low"), replace(other, pitch="high")], "and"


def protocols(run: OpenRun) -> dict[str, Result]:
    """`order` and `attribute` binding, for systems that read captions and know the generator's words."""
    system, found = run.system, {}
    words = system.vocabulary
    unknown = words.unknown(scene_caption([Event("beep", "low", "short"), Event("bell", "high", "long")], "before and"))
    for task in TASKS:
        if unknown:
            why = f"the training captions lack the words of its scenes ({', '.join(unknown)})"
            found[f"binding of {task}"] = NotRun(why)
            continue
        rng = np.random.default_rng([SEED, TASKS.index(task)])
        scenes = [swapped(rng, task) for _ in range(PAIRS)]
        sides = [(events, order) for first, second, order in scenes for events in (first, second)]
        sounds = _encoded(system, [_sound(system, play_scene(events, order, rng)) for events, order in sides], "sound")
        texts = [{"caption": words.numbers(scene_caption(events, order))} for events, order in sides]
        captions = _encoded(system, texts, "caption")
        scores = captions.view(PAIRS, 2, -1) @ sounds.view(PAIRS, 2, -1).mT
        note = f"{PAIRS} pairs of {SAID}, in the form of CompA; ties are errors"
        found[f"binding of {task}"] = winoground(scores, n_boot=run.n_boot, seed=run.seed, notes=(note,))
    return found


def _sound(system: object, wave: np.ndarray) -> dict:
    config = system.config.data
    wave = resample_wave(wave, RATE, config.sample_rate)
    return {
        "sound": fixed_length(wave, config.samples),
        "length": min(round(SECONDS * config.sample_rate), config.samples),
    }


def _encoded(system: object, samples: Sequence[dict], modality: str) -> torch.Tensor:
    return encode_rows(system, ListSamples(samples), what=lambda batch: system.encode(batch, modality)).vectors[
        modality
    ]
