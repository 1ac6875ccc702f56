"""A folder of edge lists to a `HeteroGraph`: what each file is, is said by its name.

    paper-author.csv, pa.txt     edges (two columns of numbers from 0; `.npz`: a SciPy sparse matrix; `.npy`: n x 2)
    paper_feat.npz               features of a type (also `.npy`)
    labels.npy, paper_labels.txt labels of the target type, numbers or one-hot; -1 unknown
    train_20.npy, val.txt        nodes of a split of the target type; the number is the labels per class

Matrices that follow from the edge lists (`nei_a.npz`, `pap.npz` of HeCo's folders) are not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from counterpoint.common.data.importing import find_files
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.data.npy import BROKEN, check_npy, unreadable_numpy
from counterpoint.common.errors import InputError
from counterpoint.common.vertical import Rejected
from counterpoint.graphs.hetero.graph import HeteroGraph, parse_metapath

SUFFIXES = (".csv", ".tsv", ".txt", ".npz", ".npy")
MOST = 1 << 31
"""Nodes of a type; a damaged number would be taken for a size."""


def read_folder(
    source: str | Path, target: str = "", metapaths: Sequence[str] = (), split: str = ""
) -> tuple[HeteroGraph, list[Rejected]]:
    """The graph of a folder, and the files in it that are not used.

    Args:
        source: the folder.
        target: type that is labelled and embedded; found where the labels fit one type alone.
        metapaths: `paper-author-paper` or `PAP`; without them the target over each type that is joined to it.
        split: which of several splits (`20` of `train_20.npy`); the smallest where nothing is said.

    Raises:
        InputError: naming the file and line, or the type, and what to do.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: is no folder; give the folder of the edge lists")
    found = find_files(source, SUFFIXES)
    here = [file for file in found.files if file.parent == source]
    rejected, edges, features, labels = list(found.rejected), {}, {}, {}
    splits: dict[str, dict[str, Path]] = {}
    derived: list[Path] = []
    for file in here:
        stem = file.stem.lower()
        if part := re.fullmatch(r"(train|val|test)(?:_(\w+))?", stem):
            splits.setdefault(part[2] or "", {})[part[1]] = file
        elif part := re.fullmatch(r"(?:(.+)_)?labels?", stem):
            labels[part[1] or ""] = file
        elif part := re.fullmatch(r"(.+)_(?:feat|features|x)", stem):
            features[part[1]] = file
        elif part := re.fullmatch(r"(.+?)(?:-|_to_)(.+)", stem) or re.fullmatch(r"([a-z])([a-z])", stem):
            edges[part[1], part[2]] = file
        else:
            derived.append(file)
    if not edges:
        raise InputError(f"{source}: holds no edge list; name one TYPE-TYPE.csv (paper-author.csv) or pa.txt")
    types = list(dict.fromkeys(t for pair in edges for t in pair))
    for file in derived:
        follows = file.stem.startswith("nei_") or (len(file.stem) > 2 and set(file.stem.lower()) <= set(types))
        why = "follows from the edge lists" if follows else "its name says neither types nor features, labels or split"
        rejected.append(Rejected(str(file), f"not used: {why}"))
    for kind, file in features.items():
        if kind not in types:
            raise InputError(f"{file}: {kind!r} is no node type; the edge lists name {', '.join(types)}")
    matrices = {kind: _features(file) for kind, file in features.items()}
    below = len(found.files) - len(here)
    notes = [f"{below} file(s) in folders below are not read"] if below else []
    pairs = {pair: _edges(file) for pair, file in edges.items()}
    counts = _counts(types, pairs, {k: m.shape[0] for k, m in matrices.items()}, features, edges)
    relations = {pair: _relation(pair, ends, counts, edges[pair], notes) for pair, (ends, _) in pairs.items()}
    target, known = _target(source, target, labels, counts)
    if target not in matrices:
        raise InputError(f"{source}: the target type {target} has no features; add {target}_feat.npz (or .npy)")
    plain = [t for t in types if t not in matrices]
    notes += [f"without features, each node stands for itself: {', '.join(plain)}"] if plain else []
    parts = _split(splits, split, source, counts[target], notes)
    graph = HeteroGraph(counts, matrices, relations, target, known, parts, (), notes)
    joined = [t for t in types if t != target and graph.relation(target, t) is not None]
    named = metapaths or [f"{target}-{t}-{target}" for t in joined]
    if not named:
        raise InputError(f"{source}: nothing joins the target type {target} to another; name --metapaths")
    graph.metapaths = tuple(parse_metapath(text, graph) for text in named)
    return graph, rejected


def _array(file: Path) -> np.ndarray:
    try:
        check_npy(file)
        return np.load(file, allow_pickle=False)
    except InputError:
        raise
    except BROKEN as error:
        raise unreadable_numpy(file, error) from None


def _sparse(file: Path) -> sp.coo_matrix:
    try:
        check_npy(file)
        matrix = sp.load_npz(file)
        if matrix.format in ("csr", "csc"):
            matrix.check_format(full_check=True)
        matrix = sp.coo_matrix(matrix)
    except InputError:
        raise
    except (*BROKEN, IndexError) as error:
        raise unreadable_numpy(file, error) from None
    if matrix.data.dtype.kind not in "biuf" or not np.isfinite(matrix.data).all():
        raise InputError(f"{file}: holds other than finite numbers; save numbers only")
    if matrix.nnz and (min(matrix.row.min(), matrix.col.min()) < 0 or matrix.row.max() >= matrix.shape[0]
                       or matrix.col.max() >= matrix.shape[1]):  # fmt: skip
        raise InputError(f"{file}: names a place outside of its {matrix.shape[0]} x {matrix.shape[1]}; save it again")
    return matrix


def _features(file: Path) -> sp.csr_matrix:
    if file.suffix.lower() == ".npz":
        return _sparse(file).tocsr().astype(np.float32)
    if file.suffix.lower() != ".npy":
        raise InputError(f"{file}: features are read from .npz (a SciPy sparse matrix) or .npy; save them so")
    found = _array(file)
    if not isinstance(found, np.ndarray) or found.ndim != 2 or found.dtype.kind not in "biuf" or not found.size:
        raise InputError(f"{file}: holds no matrix of numbers, nodes x features")
    if not np.isfinite(found).all():
        raise InputError(f"{file}: holds NaN or infinity; features must be finite numbers")
    return sp.csr_matrix(found.astype(np.float32))


def _edges(file: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """[edges, 2] in the order of the file, and the numbers of nodes where the file says them."""
    suffix = file.suffix.lower()
    if suffix == ".npz":
        matrix = _sparse(file)
        kept = matrix.data != 0
        return np.stack([matrix.row[kept], matrix.col[kept]], 1).astype(np.int64), matrix.shape
    if suffix == ".npy":
        found = _array(file)
        if not isinstance(found, np.ndarray) or found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu":
            raise InputError(f"{file}: holds no edges; an edge list is n x 2 whole numbers")
        return _sound(found.astype(np.int64), file), None
    return _sound(_numbers(file, 2), file), None


def _sound(ends: np.ndarray, file: Path) -> np.ndarray:
    if not len(ends):
        raise InputError(f"{file}: holds no edge")
    odd = np.flatnonzero(((ends < 0) | (ends >= MOST)).any(1))
    if len(odd):
        raise InputError(f"{file}: edge {odd[0] + 1} names node {ends[odd[0]].tolist()}; nodes are numbered from 0")
    return ends


def _numbers(file: Path, width: int) -> np.ndarray:
    """Whole numbers of a text file, `width` in a line, separated by blanks, tabs, commas or semicolons; a first line
    without digits is a heading."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}: is no text file ({type(error).__name__}); copy it again") from None
    rows = []
    for number, line in enumerate(lines, 1):
        words = re.split(r"[,;\s]+", line.strip(" \t,;"))
        if words == [""] or (number == 1 and not re.search(r"\d", line)):
            continue
        if len(words) != width or not all(re.fullmatch(r"-?\d{1,18}", word) for word in words):
            what = f"{line.strip()[:60]!r} is not {width} whole number(s), as every line must be"
            raise InputError(f"{file}, line {number}: {what}")
        rows.append([int(word) for word in words])
    return np.array(rows, dtype=np.int64).reshape(-1, width)


def _counts(types, pairs, sized, features, edges) -> dict[str, int]:
    """How many nodes each type has: as many as it has rows of features, else as its matrices or numbers say."""
    counts = {}
    for kind in types:
        said = [
            (int(ends[:, side].max(initial=-1)) + 1 if shape is None else shape[side], edges[pair])
            for pair, (ends, shape) in pairs.items()
            for side in (0, 1)
            if pair[side] == kind
        ]
        most, file = max(said, key=lambda s: s[0])
        counts[kind] = sized.get(kind, most)
        if most > counts[kind]:
            ends_at = f"{features[kind].name} has {counts[kind]} rows"
            raise InputError(f"{file}: names {kind} {most - 1}, and {ends_at}; one row of features a node is needed")
    return counts


def _relation(pair, ends, counts, file, notes) -> sp.csr_matrix:
    keys = ends[:, 0] * counts[pair[1]] + ends[:, 1]
    _, first = np.unique(keys, return_index=True)
    if doubled := len(keys) - len(first):
        seen = np.ones(len(keys), bool)
        seen[first] = False
        notes.append(f"{file.name}: {doubled} doubled edge(s) left out, the first is edge {int(np.argmax(seen)) + 1}")
    a, b = ends[first].T
    shape = (counts[pair[0]], counts[pair[1]])
    return sp.csr_matrix((np.ones(len(a), np.float32), (a, b)), shape=shape)


def _target(source, target, labels, counts) -> tuple[str, np.ndarray]:
    """The target type and its labels."""
    if target and target not in counts:
        raise InputError(f"--target {target!r} is no node type of {source}; they are {', '.join(counts)}")
    own = {kind: file for kind, file in labels.items() if kind}
    if odd := next((kind for kind in own if kind not in counts), None):
        raise InputError(f"{own[odd]}: {odd!r} is no node type; the edge lists name {', '.join(counts)}")
    target = target or (next(iter(own)) if len(own) == 1 else "")
    file = labels.get(target) or labels.get("")
    y = None if file is None else _labels(file)
    if not target:
        fitting = [t for t, n in counts.items() if y is not None and n == len(y)]
        if len(fitting) != 1:
            raise InputError(f"{source}: say which type is labelled and embedded with --target ({', '.join(counts)})")
        target = fitting[0]
    if y is None:
        return target, np.full(counts[target], -1)
    if len(y) != counts[target]:
        raise InputError(f"{file}: {len(y)} labels for {counts[target]} nodes of type {target}; one a node is needed")
    return target, y


def _labels(file: Path) -> np.ndarray:
    found = _array(file) if file.suffix.lower() == ".npy" else _numbers(file, 1)[:, 0]
    numbers = isinstance(found, np.ndarray) and found.dtype.kind in "biuf" and found.ndim in (1, 2) and found.size
    if not numbers:
        raise InputError(f"{file}: holds no labels; one number a node, or one-hot rows, is needed")
    if found.ndim == 2:
        found = np.where(found.any(1), found.argmax(1), -1)
    if not np.isfinite(found).all() or (found != np.round(found)).any() or (np.abs(found) >= MOST).any():
        raise InputError(f"{file}: a label is a whole number, -1 where it is unknown")
    return found.astype(np.int64)


def _split(splits, asked, source, n, notes) -> np.ndarray:
    """`train`, `val`, `test` or empty for each target node."""
    parts = np.full(n, "", dtype=object)
    if not splits:
        if asked:
            raise InputError(f"--split {asked}: {source} holds no train_{asked}.npy")
        return parts
    names = sorted(splits, key=lambda s: (not s.isdigit(), int(s) if s.isdigit() else 0, s))
    name = asked or names[0]
    if name not in splits:
        raise InputError(f"--split {name}: {source} has the splits {', '.join(names)}")
    if len(splits) > 1:
        notes.append(f"split {name} of {', '.join(names)}")
    for part in SPLITS:
        if part not in splits[name]:
            continue
        file = splits[name][part]
        rows = _array(file) if file.suffix.lower() == ".npy" else _numbers(file, 1)[:, 0]
        if not isinstance(rows, np.ndarray) or rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
            raise InputError(f"{file}: holds no list of node numbers")
        if rows.min() < 0 or rows.max() >= n:
            odd = int(rows.min() if rows.min() < 0 else rows.max())
            raise InputError(f"{file}: names node {odd}; nodes are 0..{n - 1}")
        if (parts[rows] != "").any():
            raise InputError(f"{file}: shares nodes with another part of the split; each node belongs to one")
        parts[rows] = part
    return parts
