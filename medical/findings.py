"""Zero-shot findings: is a volume nearer to the sentences that affirm a finding, or to those that deny it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.metrics import Interval
from counterpoint.common.metrics.bootstrap import bootstrap_weights
from counterpoint.common.metrics.classification import auroc
from counterpoint.common.metrics.result import Result
from counterpoint.common.metrics.zeroshot import prompt_ensemble
from counterpoint.common.runs.opened import OpenRun
from counterpoint.medical.phantom import FINDINGS
from counterpoint.medical.phantom_report import ABSENT, PRESENT
from counterpoint.medical.reported import report_sample
from counterpoint.medical.simulate import ATTRIBUTES, column

TIERS = {
    "easy": ("cardiomegaly", "fatty liver", "pleural effusion"),
    "seen by a histogram": ("kidney stone", "aortic calcification"),
    "local": ("lung nodule", "liver lesion", "renal cyst"),
}
"""The phantom's findings by what finds them in a body: global shape and mean, a histogram of HU, or only a look at the
place. At the default size of lesions, twice a body's, labelled coarse voxels see the last tier too (README)."""


@dataclass(frozen=True)
class Findings(Result):
    """AUROC of findings that no label was trained on.

    Attributes:
        metrics: finding -> AUROC; `mean` over them.
        chance: .5 for each.
        intervals: 95 % bootstrap intervals over patients.
        counts: finding -> volumes with it, volumes known.
        notes: what was left out.
    """

    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    counts: dict[str, tuple[int, int]]
    notes: list[str] = field(default_factory=list)


def read_findings(path: str | Path) -> dict[str, dict[str, list[str]]]:
    """Finding -> `present` and `absent` sentences, from a JSON or YAML file.

    Raises:
        InputError: no such mapping, with the form that is expected.
    """
    path = Path(path)
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of prompts") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a JSON or YAML file ({' '.join(str(error).split())[:100]})") from None
    form = 'as in {"nodule": {"present": ["A nodule."], "absent": ["No nodule."]}}'
    if not isinstance(read, dict) or not read:
        raise InputError(f"{path}: must map each finding to its sentences, {form}")
    found: dict[str, dict[str, list[str]]] = {}
    for name, given in read.items():
        if not isinstance(given, dict) or set(given) != {"present", "absent"}:
            raise InputError(f"{path}: finding {str(name)!r} needs present and absent, {form}")
        sides = {side: [v] if isinstance(v, str) else v for side, v in given.items()}
        for side, several in sides.items():
            if (
                not isinstance(several, list)
                or not several
                or not all(isinstance(s, str) and s.strip() for s in several)
            ):
                raise InputError(f"{path}: finding {str(name)!r} needs one or more sentences under {side}, {form}")
        found[str(name)] = sides
    return found


def phantom_prompts() -> dict[str, dict[str, list[str]]]:
    """Sentences for the phantom's findings, in the words of its reports; without numbers and sides."""
    words = {"size": "moderate", "Size": "Moderate", "mm": "20"}
    sides = [{"side": s, "Side": s.capitalize(), "lobe": e} for s in ("right", "left") for e in ("upper", "lower")]
    kinds = {"lung nodule": ("solid", "ground-glass", "calcified"), "liver lesion": ("cyst", "metastasis")}
    prompts = {}
    for finding in FINDINGS:
        filled = [
            template.format(**words, **side, type=kind, Type=kind.capitalize())
            for template in PRESENT[finding]
            for side in sides
            for kind in kinds.get(finding, ("",))
        ]
        absent = ABSENT.get(finding) or DENIED[finding]
        prompts[finding] = {"present": list(dict.fromkeys(filled)), "absent": list(absent)}
    return prompts


DENIED = {
    "fatty liver": ("The liver is of normal attenuation.", "No hepatic steatosis."),
    "renal cyst": ("Both kidneys are unremarkable.", "No renal cyst."),
    "kidney stone": ("Both kidneys are unremarkable.", "No nephrolithiasis."),
    "aortic calcification": ("The aorta is of normal calibre.", "No aortic calcification."),
}
"""What the phantom's reports rarely or never deny, denied."""


def score_findings(
    volumes: Float[Tensor, "volumes dim"],
    prompts: Mapping[str, tuple[Float[Tensor, "present dim"], Float[Tensor, "absent dim"]]],
    labels: Mapping[str, Sequence[float | None]],
    groups: Sequence[str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Findings:
    """AUROC of v.(mean of present - mean of absent) for every finding; labels of -1 (uncertain) or none do not count.

    Args:
        volumes: embeddings.
        prompts: finding -> embeddings of the sentences that affirm, and of those that deny it.
        labels: finding -> 1, 0, -1 or None of every volume.
        groups: the patients, for the intervals.
    """
    every, z = finding_scores(volumes, prompts), volumes
    scores, truth, known, notes = {}, {}, {}, []
    for name in prompts:
        y = known_labels(name, labels[name])
        seen = np.isfinite(y)
        if len(set(y[seen].tolist())) < 2:
            notes.append(f"{name}: all {int(seen.sum())} known labels are alike, so nothing can be told apart")
            continue
        scores[name], truth[name], known[name] = every[name], y == 1, seen

    def figures(weight: np.ndarray) -> dict[str, float]:
        of = {n: auroc(scores[n][known[n]], truth[n][known[n]], weight[known[n]].astype(float)) for n in scores}
        return {**of, "mean": float(np.mean(list(of.values())))} if of else {}

    if not scores:
        return Findings({}, {}, {}, {}, notes)
    intervals = bootstrap_weights(figures, len(z), None if groups is None else np.asarray(groups), n=n_boot, seed=seed)
    counts = {n: (int((truth[n] & known[n]).sum()), int(known[n].sum())) for n in scores}
    metrics = {name: interval.value for name, interval in intervals.items()}
    return Findings(metrics, dict.fromkeys(metrics, 0.5), intervals, counts, notes)


def finding_scores(
    volumes: Float[Tensor, "volumes dim"],
    prompts: Mapping[str, tuple[Float[Tensor, "present dim"], Float[Tensor, "absent dim"]]],
) -> dict[str, np.ndarray]:
    """v.(mean of present - mean of absent) of every finding and volume."""
    z = volumes.float().cpu().numpy()
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return {
        name: z @ (prompt_ensemble(present.float()) - prompt_ensemble(absent.float())).cpu().numpy()
        for name, (present, absent) in prompts.items()
    }


def known_labels(name: str, labels: Sequence[float | None]) -> np.ndarray:
    """1, 0, or NaN where a label is uncertain (-1) or missing.

    >>> known_labels("nodule", [1, 0, -1, None]).tolist()
    [1.0, 0.0, nan, nan]
    """
    try:
        y = np.array([np.nan if v is None or v == "" else float(v) for v in labels])
    except (TypeError, ValueError):
        odd = next(v for v in labels if not _number(v))
        raise InputError(f"label column {name!r} holds {odd!r}; 1, 0, -1 (uncertain) or nothing is expected") from None
    if odd := set(y[np.isfinite(y)].tolist()) - {0.0, 1.0, -1.0}:
        raise InputError(f"label column {name!r} holds {min(odd):g}; 1, 0, -1 (uncertain) or nothing is expected")
    y[y == -1] = np.nan
    return y


def _number(value: Any) -> bool:
    try:
        float(value or 0)
    except (TypeError, ValueError):
        return False
    return True


def encode_texts(system: Any, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    """Embeddings of sentences, each as a report of its own."""
    from counterpoint.common.data.encoding import encode_rows
    from counterpoint.common.data.samples import ListSamples

    data, tokenizer = system.config.data, system.tokenizer
    samples = ListSamples([report_sample(text, data, tokenizer) for text in texts])
    return encode_rows(system, samples, what=lambda batch: system.encode(batch, "report")).vectors["report"]


def _prompts(run: OpenRun) -> dict[str, dict[str, list[str]]]:
    """The configured prompts whose findings are columns of the data; the phantom's where none are configured."""
    config, known = run.system.config.data, run.samples().columns
    if config.prompts:
        prompts = read_findings(config.prompts)
        if missing := [name for name in prompts if name not in known and column(name) not in known]:
            raise InputError(
                f"{config.prompts}: the data have no column {missing[0]!r}; keep it with --labels at import"
            )
        return prompts
    return {name: given for name, given in phantom_prompts().items() if column(name) in known}


def finding_vectors(run: OpenRun) -> dict[str, tuple[Tensor, Tensor]]:
    """Finding -> embeddings of the sentences that affirm it, and of those that deny it."""
    return {
        name: (encode_texts(run.system, given["present"]), encode_texts(run.system, given["absent"]))
        for name, given in _prompts(run).items()
    }


def finding_labels(run: OpenRun, split: str) -> dict[str, list[float | None]]:
    """Finding -> label of every encoded volume of a split."""
    samples, labels = run.samples(split), {}
    for name in _prompts(run):
        values = samples.column(name if name in samples.columns else column(name))
        labels[name] = [values[p] for p in run.encoded(split).positions]
    return labels


def protocols(run: OpenRun) -> dict[str, Result]:
    """Zero-shot findings, and the phantom's attributes of findings that are present, for `evaluate`."""
    vectors, samples, encoded = finding_vectors(run), run.samples(), run.encoded()
    if not vectors:
        return {}
    labels = finding_labels(run, run.split)
    options = {"n_boot": run.n_boot, "seed": run.seed}
    groups = [samples.groups[p] for p in encoded.positions]
    volumes = encoded.of(run.system.modalities[0])
    found: dict[str, Result] = {"zero-shot findings": score_findings(volumes, vectors, labels, groups, **options)}
    if not run.system.config.data.prompts:
        found["zero-shot attributes"] = _attributes(run, volumes, list(encoded.positions), groups)
    return found


def _attributes(run: OpenRun, volumes: Tensor, positions: Sequence[int], groups: Sequence[str]) -> Findings:
    """Each value of an attribute against the others, among the volumes that have the finding."""
    samples = run.samples()
    labels: dict[str, list[float | None]] = {}
    vectors: dict[str, tuple[Tensor, Tensor]] = {}
    prompts = phantom_prompts()
    for finding, name in ATTRIBUTES:
        if f"{column(finding)}_{name}" not in samples.columns:
            continue
        values = samples.column(f"{column(finding)}_{name}")
        kinds = sorted({v for v in values if v})
        for kind in kinds[: 1 if len(kinds) == 2 else None]:  # of two values one tells all
            mine = [t for t in prompts[finding]["present"] if kind in _words(t)]
            others = [t for t in prompts[finding]["present"] if any(k in _words(t) for k in kinds if k != kind)]
            if not mine or not others:
                continue
            key = f"{finding}: {name} {kind}"
            labels[key] = [float(values[p] == kind) if values[p] else None for p in positions]
            vectors[key] = encode_texts(run.system, mine), encode_texts(run.system, others)
    return score_findings(volumes, vectors, labels, groups, run.n_boot, run.seed)


def _words(text: str) -> list[str]:
    """Lower-case words without the full stop behind the last one."""
    return text.lower().replace(".", " ").split()
