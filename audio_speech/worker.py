"""Engraving and synthesis in processes of their own: `python -m counterpoint.audio_speech.worker` reads orders as JSON
lines and answers each with a line. It loads neither torch nor the caller's program, so scripts need no guard.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np

from counterpoint.audio_speech.configs import EngravingConfig, Rendition, SpectrogramConfig
from counterpoint.audio_speech.engrave import engrave_to, load_engraving
from counterpoint.audio_speech.features import spectrogram
from counterpoint.audio_speech.synth import synthesise
from counterpoint.common.errors import InputError


def perform_to(engraving: Path, rendition: Rendition, config: SpectrogramConfig, seed: int, target: Path) -> None:
    """Play an engraved score and write the performance's float16 spectrogram as `.npy`."""
    wave = synthesise(load_engraving(engraving).notes, rendition, config.sample_rate, seed)
    with Path(target).open("wb") as file:
        np.save(file, spectrogram(wave, config).astype(np.float16), allow_pickle=False)


def obey(order: dict[str, Any]) -> None:
    """Do one order."""
    if order["what"] == "engrave":
        engrave_to(Path(order["score"]), EngravingConfig(**order["config"]), Path(order["target"]))
    else:
        how, config = Rendition(**order["rendition"]), SpectrogramConfig(**order["config"])
        perform_to(Path(order["engraving"]), how, config, order["seed"], Path(order["target"]))


class Workers:
    """Orders for `count` processes, which are started when first needed; with one, the work is done right here.

    Safe to call from several threads; each call returns when its order is done.
    """

    def __init__(self, count: int) -> None:
        self.count, self.idle, self.started, self.lock = count, SimpleQueue(), [], Lock()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def engrave(self, score: Path, config: EngravingConfig, target: Path) -> None:
        """Engrave a score into `target`."""
        self._do({"what": "engrave", "score": str(score), "config": asdict(config), "target": str(target)})

    def perform(
        self, engraving: Path, rendition: Rendition, config: SpectrogramConfig, seed: int, target: Path
    ) -> None:
        """Write the spectrogram of a performance into `target`."""
        how = {"rendition": asdict(rendition), "config": asdict(config), "seed": seed}
        self._do({"what": "perform", "engraving": str(engraving), **how, "target": str(target)})

    def _do(self, order: dict[str, Any]) -> None:
        if self.count <= 1:
            obey(order)
            return
        with self.lock:
            if len(self.started) < self.count and self.idle.empty():
                self.started.append(_start())
                self.idle.put(self.started[-1])
        process = self.idle.get()
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            self.idle.put(process)
        if not answer:
            raise RuntimeError(f"the process that renders scores ended (exit code {process.poll()}) at {order}")
        error = json.loads(answer)["error"]
        if error is not None:
            raise InputError(error)


def _start() -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __name__]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


def main() -> None:
    """Answer orders until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    for line in sys.stdin:
        error = None
        try:
            obey(json.loads(line))
        except InputError as refused:
            error = str(refused)
        answers.write(json.dumps({"error": error}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
