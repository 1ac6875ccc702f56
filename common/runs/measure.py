"""A run to figures, and figures to lines: what `evaluate` and `report` share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.metrics import (
    PROTOCOLS,
    Calibration,
    Clustering,
    Comparison,
    Control,
    CorruptionSweep,
    Episodes,
    Evaluation,
    Interval,
    LabelEfficiency,
    LabelFree,
    MissingModality,
    NotRun,
    Split,
    evaluate_features,
)
from counterpoint.common.metrics.bootstrap import short
from counterpoint.common.output import table
from counterpoint.common.runs.encode import Encoded, entry_of, modality_pairs
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.runs.queries import encode_prompts
from counterpoint.common.suggest import no_such
from counterpoint.common.trainers import FinetuneSystem, load_yaml
from counterpoint.common.trainers.config_files import option_names
from counterpoint.common.trainers.run_folder import build_system
from counterpoint.common.vertical import Vertical


@dataclass(frozen=True)
class Examined:
    """A run's split encoded and evaluated; `others` are the splits that probes learn from, `untrained` the same figures
    of a network of the same shape with its initial weights."""

    encoded: Encoded
    others: dict[str, Encoded]
    evaluation: Evaluation
    untrained: Evaluation | None = None


_REMEDIES = {
    "labels": "--label NAME of the field or column that holds them",
    "classes": "--label NAME of a field or column that holds classes",
    "no regression": "--label NAME of a field or column that holds classes",
    "descriptions": "--prompts FILE describes them",
}

# Encoding and scoring this many samples twice costs well under a minute on a laptop.
UNTRAINED_UP_TO = 2000


def examine(
    vertical: Vertical,
    run: Path,
    checkpoint: str = "best",
    split: str = "test",
    *,
    manifest: Path | None = None,
    protocols: tuple[str, ...] = (),
    label: str | None = None,
    prompts: Path | None = None,
    described_in: str | None = None,
    limit: int | None = None,
    batch_size: int = 128,
    n_boot: int = 1000,
    seed: int = 0,
    baseline: str = "none",
    settings: tuple[str, ...] = (),
) -> Examined:
    """Encode a split of a run (with labels also the splits that probes learn from) and evaluate it.

    `settings`: those of the evaluation that are taken otherwise than the run has them, as in
    `ranking.convention=mmrec`.
    `baseline`: `untrained` measures a network of the same shape with its initial weights too, `auto` does so where
    there are at most `UNTRAINED_UP_TO` samples, `none` never.
    """
    if prompts is not None and label is None:
        raise InputError("--prompts describes classes; --label says which field or column holds a sample's class")
    options = {"manifest": manifest, "batch_size": batch_size, "limit": limit, "label": label}
    if settings:
        options["settings"] = evaluation_settings(vertical, run, settings)
    opened = OpenRun.load(run, checkpoint, split, **options)
    encoded = opened.encoded()
    descriptions = None
    if prompts is not None:
        descriptions = encode_prompts(vertical, encoded.system, prompts, described_in or next(iter(encoded.vectors)))
    found = measure(vertical, opened, protocols=protocols, descriptions=descriptions, n_boot=n_boot, seed=seed)
    others = _learnt_from(opened)
    few = len(encoded) + sum(len(part) for part in others.values()) <= UNTRAINED_UP_TO
    if prompts is not None or not (baseline == "untrained" or (baseline == "auto" and few)):
        return Examined(encoded, others, found)
    return Examined(encoded, others, found, measure_untrained(vertical, opened, protocols, seed))


def evaluation_settings(vertical: Vertical, run: Path, settings: tuple[str, ...]) -> dict[str, Any]:
    """Settings by their dotted names, as `ranking.convention=mmrec` gives them, of the section that the run's system
    is evaluated by.

    Raises:
        InputError: one is not `name=value`, or concerns more than the evaluation.
    """
    named = str(load_yaml(run / "config.yaml").get("system"))
    entry = next((entry for entry in vertical.systems if entry.system == named), None)
    section = "" if entry is None else entry.evaluation
    if not section:
        raise InputError(
            f"--settings: {entry.name if entry else run} has no settings that concern its evaluation alone"
        )
    names = list(option_names(resolve(entry.config), ""))
    known = [name for name in names if name.startswith(f"{section}.")]
    found = {}
    for setting in settings:
        name, given, value = (part.strip() for part in setting.partition("="))
        if not given:
            raise InputError(f"--settings {setting}: expected name=value, as in {known[0]}=...")
        if name in names and name not in known:
            raise InputError(
                f"--settings: {name} concerns the training; those of the evaluation are {', '.join(known)}"
            )
        if name not in known:
            raise InputError(f"--settings: {no_such('setting', name, known)}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--settings {setting}: the value cannot be read") from error
    return found


def _learnt_from(run: OpenRun) -> dict[str, Encoded]:
    """The splits that probes learn from, where there are labels."""
    if run.label is None:
        return {}
    return {name: run.encoded(name) for name in ("train", "val") if name in run.splits and name != run.split}


def measure_untrained(vertical: Vertical, run: OpenRun, protocols: tuple[str, ...], seed: int) -> Evaluation | None:
    """The figures of the same samples under initial weights, the system's own among them; None where the system cannot
    be built anew."""
    system = run.system
    if isinstance(system, FinetuneSystem):  # has no shape of its own: its baseline is the run it stands on
        return None
    fresh = build_system(type(system), system.config, system.assets)
    fresh.stage = system.stage
    return measure(vertical, run.with_system(fresh), protocols=protocols, n_boot=1, seed=seed)


def not_paired(first: Examined, second: Examined) -> str:
    """Why two runs cannot be compared sample by sample; empty when they can."""
    one, other = first.encoded, second.encoded
    if one.pools.keys() != other.pools.keys():
        return "its modalities have other samples of their own"
    for name in ("", *one.pools):
        a, b = (one.pools[name], other.pools[name]) if name else (one, other)
        if a.ids != b.ids:
            shared = len(set(a.ids) & set(b.ids))
            what = f"samples of {name}" if name else "samples"
            return f"it was evaluated on other {what} ({len(b)}, of which {shared} are among the first run's {len(a)})"
    return ""


def measure(
    vertical: Vertical,
    run: OpenRun,
    *,
    protocols: tuple[str, ...] = (),
    descriptions: Mapping[str, Tensor] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate the split of an opened run; `descriptions` are those of the classes."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise no_such("protocol", name, PROTOCOLS)
    entry = entry_of(vertical, run.system)
    chosen = protocols or (None if entry is None else entry.shared)
    if not run.encoded().modalities:
        if protocols:
            raise InputError(f"{type(run.system).__name__} has no embeddings, which the common protocols are about")
        evaluation = _nothing(run, n_boot, seed)
    else:
        options = {"descriptions": descriptions, "n_boot": n_boot, "seed": seed}
        evaluation = _common(run, chosen, asked=bool(protocols), **options)
    if entry is None or entry.protocols is None or protocols:
        return evaluation
    own = resolve(entry.protocols)(run.drawing(n_boot, seed))
    why = {name: result.reason for name, result in own.items() if isinstance(result, NotRun)}
    scored = {name: result for name, result in own.items() if name not in why}
    return replace(evaluation, results={**evaluation.results, **scored}, skipped={**evaluation.skipped, **why})


def _nothing(run: OpenRun, n_boot: int, seed: int) -> Evaluation:
    """An evaluation without figures, of a system without embeddings: its own protocols follow."""
    part = run.encoded()
    samples, groups, digest = {"test": len(part)}, {"test": len(set(part.groups))}, {"test": part.dataset.hash}
    return Evaluation({}, {}, "unlabelled", samples, groups, digest, seed, n_boot, "")


def _common(
    run: OpenRun,
    protocols: tuple[str, ...] | None,
    *,
    asked: bool,
    descriptions: Mapping[str, Tensor] | None = None,
    n_boot: int,
    seed: int,
) -> Evaluation:
    """The protocols that every system shares; those that somebody asked for must be possible."""
    others = {name: evaluation_split(part) for name, part in _learnt_from(run).items()}
    try:
        return evaluate_features(
            evaluation_split(run.encoded(), run.system.metric),
            others.get("train"),
            others.get("val"),
            protocols="auto" if protocols is None else protocols,
            strict=asked,
            descriptions=descriptions,
            ks=(1, 5, 10, 25),
            seed=seed,
            n_boot=n_boot,
            remedies=_REMEDIES,
        )
    except ValueError as error:
        # Labels that do not fit the protocol asked for: the user chose both.
        raise InputError(str(error)) from error


def evaluation_split(part: Encoded, metric: str = "cosine") -> Split:
    """Encoded samples with their truth as metrics take them."""
    ways = [(a, b) for a, b in modality_pairs(part)]
    truth = {what: {way: part.links(*way, what) for way in ways} for what in ("relevant", "exclude")}
    known = {what: {way: links for way, links in found.items() if links is not None} for what, found in truth.items()}
    pools = {name: Split(pool.vectors[name], pool.labels, pool.groups) for name, pool in part.pools.items()}
    return Split(part.vectors, part.labels, part.groups, pools=pools, metric=metric, **known)


def lines_of(evaluation: Evaluation, untrained: Evaluation | None = None) -> list[str]:
    """The figures as aligned tables for people, beside those of an untrained network where it was measured."""
    beside = {} if untrained is None else {(name, m): short(i.value) for name, m, i, _ in untrained.figures()}
    rows = [
        (
            name,
            metric,
            short(i.value),
            i.span(),
            "" if chance is None else short(chance),
            *([beside.get((name, metric), "")] if beside else []),
            *counted(evaluation.results[name], i),
        )
        for name, metric, i, chance in evaluation.figures()
    ]
    head = ("protocol", "metric", "value", "95 % interval", "chance", *(["untrained"] if beside else []))
    lines = table((*head, "samples", "groups"), rows) if rows else []
    free = [
        (name, str(m.n), str(m.dim), f"{m.rankme:.1f}", f"{m.uniformity:.2f}", f"{m.mean_cosine:.2f}")
        for name, m in evaluation.results.items()
        if isinstance(m, LabelFree)
    ]
    if free:
        lines += ["", *table(("label-free", "samples", "dim", "RankMe", "uniformity", "mean cosine"), free)]
    extras = [line for name, result in evaluation.results.items() for line in _extra_lines(name, result)]
    lines += ["", *extras] if extras else []
    noted: dict[str, list[str]] = {}
    for name, note in evaluation.notes():
        noted.setdefault(note, []).append(name)
    lines += ["", *(f"note: {', '.join(names)}: {note}" for note, names in noted.items())] if noted else []
    if evaluation.skipped:
        lines += ["", *(f"not run: {name}: {reason}" for name, reason in evaluation.skipped.items())]
    return lines


def counted(result: object, interval: Interval) -> tuple[str, str]:
    """How many samples and groups a figure stands on; episodes and seeds where these are what the interval is over."""
    if isinstance(result, Episodes):
        return f"{result.episodes} episodes", ""
    if isinstance(result, Clustering):
        return f"{result.n}", f"{interval.n} seeds"
    if isinstance(result, LabelEfficiency):
        learnt = next(n for n, i in zip(result.samples, result.intervals) if i is interval)
        return f"{learnt:.0f} learnt from", f"{interval.n} seeds"
    return str(interval.n), str(interval.groups)


def comparison_lines(comparisons: list[Comparison], first: str, second: str) -> list[str]:
    """Paired differences as an aligned table."""
    rows = [
        (
            c.protocol,
            c.metric,
            f"{c.first:.3g}",
            f"{c.second:.3g}",
            f"{c.difference.value:+.3g}",
            f"{c.difference.low:+.3g} .. {c.difference.high:+.3g}" if c.difference.known else "",
            f"{c.difference.p_value:.3g}",
            c.verdict,
        )
        for c in comparisons
    ]
    head = ("protocol", "metric", "first", "second", "difference", "95 % interval", "p", "second is")
    return [f"first: {first}; second: {second}; the same samples", *table(head, rows)]


def _extra_lines(name: str, result: object) -> list[str]:
    """Results that are no single figure, in words."""
    calibration = getattr(result, "calibration", None)
    if isinstance(calibration, Calibration):
        said = f"ECE {calibration.ece:.3f}, Brier {calibration.brier:.3f}, log loss {calibration.nll:.3f}"
        return [f"calibration of {name}: {said}"]
    if isinstance(result, Control):
        verdict = "LEAK: shuffled labels score off chance" if result.leak else "shuffled labels score at chance"
        spread = f"{result.shuffled_mean:.3f} ({result.low:.3f} .. {result.high:.3f}), chance {result.chance:.3f}"
        return [f"{name}: {verdict}: {spread}; real labels {result.real:.3f}, p = {result.p_value:.3f}"]
    if isinstance(result, MissingModality):
        return [f"{name}: " + ", ".join(f"with {kept} {score:.3f}" for kept, score in result.scores.items())]
    if isinstance(result, CorruptionSweep):
        lines = [f"{name}: clean {result.clean:.3f}, chance {result.chance:.3f}"]
        for corruption, scores in result.scores.items():
            curve = ", ".join(f"{score:.3f} at {s:g}" for s, score in zip(result.severities, scores))
            lines.append(f"  {corruption}: {curve}; relative drop {result.relative_drop[corruption]:.2f}")
        return lines
    return []
