"""Encoded samples to figures, and figures to lines: what `evaluate` and `report` share."""

from __future__ import annotations

from dataclasses import replace

from counterpoint.common.cli.encode import Encoded, entry_of
from counterpoint.common.cli.simple import table
from counterpoint.common.cli.suggest import no_such
from counterpoint.common.cli.vertical import Vertical
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.metrics import PROTOCOLS, Evaluation, Split, evaluate


def measure(
    vertical: Vertical,
    encoded: Encoded,
    others: dict[str, Encoded] | None = None,
    *,
    protocols: tuple[str, ...] = (),
    n_boot: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Evaluate encoded samples; `others` are the splits that probes learn from."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise no_such("protocol", name, PROTOCOLS)

    def split(part: Encoded | None) -> Split | None:
        return None if part is None else Split(part.vectors, part.labels, part.groups)

    others = others or {}
    try:
        evaluation = evaluate(
            split(encoded),
            split(others.get("train")),
            split(others.get("val")),
            protocols=protocols or "auto",
            ks=(1, 5, 10, 25),
            seed=seed,
            n_boot=n_boot,
        )
    except ValueError as error:
        # Labels that do not fit the protocol asked for: the user chose both.
        raise InputError(str(error)) from error
    entry = entry_of(vertical, encoded.system)
    if entry is None or entry.protocols is None or protocols:
        return evaluation
    if encoded.left_out:
        reason = f"{len(encoded.left_out)} samples could not be read"
        return replace(evaluation, skipped={**evaluation.skipped, "the system's own": reason})
    own = resolve(entry.protocols)(encoded.system, encoded.dataset, encoded.vectors)
    return replace(evaluation, results={**evaluation.results, **own})


def lines_of(evaluation: Evaluation) -> list[str]:
    """The figures as aligned tables for people."""
    rows = [
        (name, metric, f"{i.value:.3g}", f"{i.low:.3g} .. {i.high:.3g}", "" if chance is None else f"{chance:.3g}")
        for name, metric, i, chance in evaluation.figures()
    ]
    lines = table(("protocol", "metric", "value", "95 % interval", "chance"), rows) if rows else []
    free = [
        (name, str(m.n), str(m.dim), f"{m.rankme:.1f}", f"{m.uniformity:.2f}", f"{m.mean_cosine:.2f}")
        for name, m in evaluation.results.items()
        if hasattr(m, "rankme")
    ]
    if free:
        lines += ["", *table(("label-free", "samples", "dim", "RankMe", "uniformity", "mean cosine"), free)]
    if evaluation.skipped:
        lines += ["", *(f"not run: {name}: {reason}" for name, reason in evaluation.skipped.items())]
    return lines
