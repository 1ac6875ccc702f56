"""What users bring to be encoded: files and texts of their own, and descriptions of classes made of them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.importing import require_file
from counterpoint.common.data.isolation import Isolated
from counterpoint.common.data.samples import ListSamples, Samples
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.progress import note
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Vertical


@dataclass(frozen=True)
class Known:
    """What a reader of users' files is given of the loaded system: light, since it goes to the reader's process."""

    config: Any
    assets: Any


def samples_of_file(vertical: Vertical, system: Any, file: Path, modality: str) -> Samples:
    """A user's file as samples, read in a worker process: whatever a damaged file does to its parser, it is refused."""
    read = vertical.modality(modality).read
    if read is None:
        raise InputError(f"{vertical.name} cannot read a file as one {modality}; start from a stored sample (--id)")
    with Isolated() as worker:
        try:
            known = Known(system.config, system.assets)
            found, said = worker.call(_heard, resolve(read), require_file(file), modality, known)
        except InputError as error:
            said = str(error)
            raise InputError(said if file.name in said else f"{file}: {said}") from None
    for text in said:
        note(text)
    return _as_samples(found)


def _heard(read: Callable[..., Any], *arguments: Any) -> tuple[Any, list[str]]:
    """What a reader gives, and the notes it made: in a worker process nobody hears them."""
    with contextlib.redirect_stderr(io.StringIO()) as heard, warnings.catch_warnings(action="ignore"):
        return read(*arguments), heard.getvalue().splitlines()


def samples_of_text(vertical: Vertical, system: Any, text: str, modality: str) -> Samples:
    """A user's text (a SMILES string, a sentence) as samples."""
    parse = vertical.modality(modality).parse
    if parse is None:
        raise InputError(f"{vertical.name} takes no text as one {modality}; give a file")
    with Isolated() as worker:
        known = Known(system.config, system.assets)
        found, said = worker.call(_heard, resolve(parse), text, modality, known)
    for words in said:
        note(words)
    return _as_samples(found)


def _as_samples(found: Samples | Mapping[str, Any]) -> Samples:
    return found if isinstance(found, Samples) else ListSamples(found.get("windows") or [found])


def encode_samples(system: Any, samples: Samples, modality: str) -> Float[Tensor, "samples dim"]:
    """The embeddings of a user's samples, made where the system is."""
    found = encode_rows(system, samples, what=lambda batch: system.encode(batch, modality)).vectors
    if modality not in found:
        raise no_such("modality", modality, found)
    return found[modality]


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
                if vertical.modality(modality).parse is None or file.is_file():
                    samples = samples_of_file(vertical, system, file, modality)
                else:
                    samples = samples_of_text(vertical, system, one, modality)
                rows.append(encode_samples(system, samples, modality))
            except ValueError as error:
                raise InputError(f"{path}, class {name!r}: {error}") from error
        vectors[name] = torch.cat(rows)
    return vectors
