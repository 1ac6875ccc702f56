"""`data curate RUN`: a better manifest by looking at a run's embeddings; nothing leaves without a reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Outcome


def curate(
    run: Path,
    out: Path,
    keep: float | None = None,
    min_score: float | None = None,
    duplicates: float | None = None,
    like: tuple[str, ...] = (),
    top: int | None = None,
    modality: str | None = None,
    split: str = "train",
    checkpoint: Literal["best", "last"] = "best",
    manifest: Path | None = None,
) -> Outcome:
    """Keep the pairs that match, drop near-duplicates, pick what is like given samples: in this order, as far as asked.

    Args:
        run: the run whose encoder judges.
        out: the manifest to write, which names the files from its own folder; what was dropped goes to
            NAME.dropped.csv beside it.
        keep: share of the pairs to keep, the best matching ones (two modalities).
        min_score: or the least score between a pair's two modalities, by the system's metric (a cosine for most). Of a
            sample with several answers in the other modality the mean counts.
        duplicates: cosine from which two samples count as duplicates, e.g. 0.95; the better matching one stays. Where
            the system's metric counts lengths (dot), they must be as alike.
        like: ids of samples; only the `top` ones nearest to any of them stay.
        top: how many stay near the samples in `like`.
        modality: whose embeddings tell duplicates and likeness; the system's first one unless given.
        split: train, val or test.
        checkpoint: which weights.
        manifest: curate this manifest instead of the run's own data.
    """
    from dataclasses import replace

    import pandas as pd

    from counterpoint.common.data import curate
    from counterpoint.common.data.moving import moved
    from counterpoint.common.metrics.scores import score_named
    from counterpoint.common.runs.encode import modality_pairs
    from counterpoint.common.runs.opened import OpenRun
    from counterpoint.common.suggest import no_such

    if keep is None and min_score is None and duplicates is None and not like:
        raise InputError("nothing to do: give --keep, --min_score, --duplicates or --like")
    if bool(like) != (top is not None):
        raise InputError("--like and --top go together")
    encoded = OpenRun.load(run, checkpoint, split, manifest=manifest).encoded()
    source = encoded.dataset.manifest
    if source is None or len(source) != len(encoded.dataset):
        raise InputError(f"the data of {type(encoded.system).__name__} are no manifest with one row per sample")
    names, metric = list(encoded.vectors), score_named(encoded.system.metric)
    modality = modality or names[0]
    if modality in encoded.pools:
        raise InputError(f"{modality} has rows of its own, not one a sample; --modality is one of {', '.join(names)}")
    if modality not in names:
        raise no_such("modality", modality, names)
    table = replace(source, frame=source.frame.iloc[encoded.positions])
    place = {name: row for row, name in enumerate(encoded.ids)}
    unknown = [name for name in like if name not in place]
    if unknown:
        raise no_such("id", unknown[0], place)
    pairs = list(modality_pairs(encoded))
    if (keep is not None or min_score is not None) and not pairs:
        raise InputError("--keep and --min_score need two modalities in one space")
    if min_score is not None and metric.shown is not float:
        raise InputError(f"--min_score: a smaller {metric.name} is a better match; give --keep")
    match = _matches(encoded, metric, pairs) if pairs else None
    dropped = []

    def rows_of(kept) -> list[int]:
        return [place[name] for name in kept.frame["id"].astype(str)]

    try:
        if keep is not None or min_score is not None:
            step = curate.filter_pairs(table, match, min_score=min_score, keep=keep)
            table, dropped = step.manifest, [*dropped, step.dropped]
        if duplicates is not None and len(table):
            rows = rows_of(table)
            scores = None if match is None else match[rows]
            step = curate.remove_near_duplicates(
                table, encoded.vectors[modality][rows], threshold=duplicates, scores=scores, metric=metric
            )
            table, dropped = step.manifest, [*dropped, step.dropped]
        if like and len(table):
            vectors, queries = encoded.vectors[modality], [place[name] for name in like]
            step = curate.subset_by_query(table, vectors[rows_of(table)], vectors[queries], k=top, metric=metric)
            table, dropped = step.manifest, [*dropped, step.dropped]
    except ValueError as error:
        raise InputError(str(error)) from error
    if not len(table):
        raise InputError("nothing would be left; ask for less")
    moved(table, out.parent).save(out)
    gone = pd.concat(dropped, ignore_index=True)
    listing = out.with_name(f"{out.stem}.dropped.csv")
    gone.to_csv(listing, index=False)
    reasons = {str(k): int(v) for k, v in gone["reason"].str.split(":").str[0].value_counts().items()}
    lines = [f"{len(table)} of {len(encoded)} kept"]
    lines += [f"{count} dropped: {reason}" for reason, count in reasons.items()]
    figures = {"kept": len(table), "dropped": reasons, "unreadable": len(encoded.left_out)}
    return Outcome(figures, (*lines, f"wrote {out}"), {"manifest": out, "dropped": listing})


def _matches(encoded: Any, metric: Any, pairs: Sequence[tuple[str, str]]) -> Any:
    """[n] how well the modalities of each sample match, by the system's metric: the first two that can be compared, or
    all of them where it is a joint one."""
    from counterpoint.common.data.curate import pair_scores

    if metric.joint:
        return pair_scores(*encoded.vectors.values(), metric=metric)
    a, b = pairs[0]
    links = encoded.links(a, b)
    if a in encoded.pools:
        a, b, links = b, a, None if links is None else links.T
    try:
        return pair_scores(encoded.of(a), encoded.of(b), metric=metric, relevant=links)
    except ValueError as error:
        raise InputError(f"{a} and {b}: {error}") from error
