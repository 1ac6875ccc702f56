"""Models for others: weights, configuration, preprocessing recipe and model card in one folder, no pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from counterpoint.common.errors import InputError
from counterpoint.common.trainers import frozen
from counterpoint.common.trainers.checkpoints import MODEL, write_model
from counterpoint.common.trainers.config_files import to_dict
from counterpoint.common.trainers.environment import environment, read_environment
from counterpoint.common.trainers.run_folder import (
    ASSETS,
    GIVEN,
    load_weights,
    system_class,
    system_name,
    system_of,
)

CONFIG, PREPROCESSING, CARD = "config.json", "preprocessing.json", "README.md"


def save_pretrained(
    system: Any, folder: str | Path, metrics: Mapping[str, float] | None = None, notes: str = ""
) -> Path:
    """Write `model.safetensors`, `config.json`, `assets/`, `preprocessing.json` and a model card (`README.md`); of a
    system with frozen parts their weights too, in `frozen/` under the hash that `model.safetensors` names.

    The folder can be uploaded to a model hub as it is; `from_pretrained` reads it back. `metrics` and `notes` go into
    the card; the data's hashes and the versions come from the run the system was loaded from or trained in.
    """
    folder = Path(folder)
    config = {"system": system_name(system), "config": to_dict(system.config), "versions": environment()["versions"]}
    config |= {GIVEN: True} if system.given else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_model(folder, system.state_dict(), system.frozen_weights())
        frozen.tidy_frozen(folder / frozen.FOLDER, [folder / MODEL])
        system.assets.save(folder / ASSETS)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        recipe = json.dumps(system.preprocessing(), indent=2)
        (folder / PREPROCESSING).write_text(recipe + "\n", encoding="utf-8")
        (folder / CARD).write_text(_card(system, metrics or {}, notes), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot be written ({getattr(error, 'strerror', None) or error})") from error
    return folder


def from_pretrained(source: str | Path, revision: str | None = None, allow: Sequence[str] = ()) -> Any:
    """A system from a folder of `save_pretrained`, or from a model hub by `owner/name`.

    Only classes derived from `ContrastiveSystem` are built; nothing is unpickled, and no module is imported but those
    of installed verticals and of `allow`.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(str(source), revision)
    if not (folder / CONFIG).is_file() or not (folder / MODEL).is_file():
        raise InputError(f"{folder}: not a saved model (it needs {CONFIG} and {MODEL})")
    try:
        record = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{folder / CONFIG}: is no readable JSON ({error})") from error
    system = system_of(record, folder / CONFIG, allow)
    load_weights(system, folder)
    return system.eval()


def _download(name: str, revision: str | None) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or os.sep in name.replace("/", "", 1):
        raise InputError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download

    try:
        wanted = ["*.json", "*.safetensors", "*.md", f"{ASSETS}/*", f"{frozen.FOLDER}/*"]
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError) as error:  # the hub's errors derive from these
        raise InputError(
            f"{name}: no such folder, and the hub did not give it ({' '.join(str(error).split())})"
        ) from error


def _card(system: Any, metrics: Mapping[str, float], notes: str) -> str:
    doc = (system_class(system).__doc__ or "").strip().splitlines()
    count = sum(p.numel() for p in system.parameters())
    lines = [
        "---",
        "library_name: counterpoint",
        "tags: [contrastive-learning, self-supervised-learning]",
        "---",
        f"# {system_class(system).__name__}",
        "",
        doc[0] if doc else "",
        "",
        f"- System: `{system_name(system)}`, {count:,} parameters",
        f"- Modalities: {', '.join(system.modalities) or 'one'}",
        f"- Trained for {system.progress.total_step:,} steps" if system.progress.total_step else "",
        "",
        "```python",
        "from counterpoint.common.trainers import from_pretrained",
        "",
        'system = from_pretrained("PATH OR OWNER/NAME")',
        "embeddings = system.encode(batch)  # batch: see preprocessing.json",
        "```",
        "",
    ]
    if notes:
        lines += [notes.strip(), ""]
    if metrics:
        lines += ["## Measured", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {value:.4g} |" for name, value in metrics.items()] + [""]
    data = _data_of(system.run_dir)
    if data:
        made = dict.fromkeys(v["synthetic"] for splits in data.values() for v in splits.values() if "synthetic" in v)
        lines += ["## Training data", "", *(f"**Synthetic**: {what}.\n" for what in made)]
        lines += ["| stage | split | samples | content hash |", "|---|---|---|---|"]
        for stage, splits in data.items():
            lines += [f"| {stage} | {s} | {v['samples']} | `{v['hash'] or 'unknown'}` |" for s, v in splits.items()]
        lines.append("")
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _data_of(run_dir: Path | None) -> dict[str, Any]:
    return {} if run_dir is None else read_environment(run_dir).get("data", {})
