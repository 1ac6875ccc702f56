"""What users bring to be encoded: files and texts of their own, and descriptions of classes made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Vertical


def sample_of_file(vertical: Vertical, system: Any, file: Path, modality: str) -> dict[str, Any]:
    """A user's file as one sample."""
    if vertical.query is None:
        raise InputError(f"{vertical.name} cannot read a file as a sample")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    return resolve(vertical.query)(file, modality, system.config)


def sample_of_text(vertical: Vertical, system: Any, text: str, modality: str) -> dict[str, Any]:
    """A user's text (a SMILES string, a sentence) as one sample."""
    if vertical.text is None:
        raise InputError(f"{vertical.name} takes no text; give a file")
    return resolve(vertical.text)(text, modality, system.config)


def encode_sample(system: Any, sample: Mapping[str, Any], modality: str) -> Float[Tensor, "1 dim"]:
    """The embedding of one sample, made where the system is."""
    device = next(system.parameters()).device
    batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in system.collate([sample]).items()}
    with torch.inference_mode():
        found = system.encode(batch, modality)
    if modality not in found:
        raise no_such("modality", modality, found)
    return found[modality].float().cpu()


def read_prompts(path: Path) -> dict[str, list[str]]:
    """Class -> its descriptions, from a JSON or YAML file: `{"benign": ["a.png", "b.png"], "malignant": "c.png"}`."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a JSON or YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(read, dict) or not read:
        raise InputError(f"{path}: must map each class to its descriptions, as in {json.dumps({'benign': ['a.png']})}")
    prompts = {}
    for name, given in read.items():
        several = given if isinstance(given, list) else [given]
        if not several or not all(isinstance(one, str) and one.strip() for one in several):
            raise InputError(f"{path}: class {str(name)!r} needs one or more descriptions (file names or texts)")
        prompts[str(name)] = several
    return prompts


def encode_prompts(
    vertical: Vertical, system: Any, path: Path, modality: str
) -> dict[str, Float[Tensor, "prompts dim"]]:
    """Encode the descriptions of every class in one modality; a description that names a file beside `path` (or by its
    whole path) is that file, any other is a text."""
    vectors = {}
    for name, descriptions in read_prompts(path).items():
        rows = []
        for one in descriptions:
            file = path.parent / one
            try:
                if vertical.text is None or file.is_file():
                    sample = sample_of_file(vertical, system, file, modality)
                else:
                    sample = sample_of_text(vertical, system, one, modality)
                rows.append(encode_sample(system, sample, modality))
            except ValueError as error:
                raise InputError(f"{path}, class {name!r}: {error}") from error
        vectors[name] = torch.cat(rows)
    return vectors
