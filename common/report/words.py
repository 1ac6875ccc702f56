"""Names of figures and protocols as a reader says them: pages show these, JSON keeps the short keys."""

from __future__ import annotations

_METRICS = {"auroc": "AUROC", "auprc": "AUPRC", "spearman": "Spearman correlation", "R2": "R²"}
_PROTOCOLS = {
    "knn": "nearest neighbours",
    "logreg": "linear probe",
    "ridge": "ridge probe",
    "simpleshot": "nearest class mean",
    "fewshot": "five-shot episodes",
    "cluster": "k-means clusters",
    "zeroshot": "zero-shot",
    "control": "control with shuffled labels",
    "efficiency": "probe by share of labels",
}

#: Figures that are shares of all samples, shown in per cent where there is room for one figure only.
SHARES = ("accuracy", "balanced_accuracy", "exact")


def metric_name(metric: str) -> str:
    """A figure's name as it is printed.

    >>> metric_name("balanced_accuracy"), metric_name("auroc"), metric_name("macro_f1"), metric_name("R@10")
    ('balanced accuracy', 'AUROC', 'macro F1', 'R@10')
    """
    return _METRICS.get(metric) or metric.replace("_", " ").replace(" f1", " F1")


def protocol_name(protocol: str, alone: str = "") -> str:
    """`alone` is the only modality there is, which needs no mention.

    >>> protocol_name("knn of signal", "signal"), protocol_name("logreg of image"), protocol_name("retrieval a -> b")
    ('nearest neighbours', 'linear probe of image', 'retrieval a → b')
    """
    first, of, modality = protocol.partition(" of ")
    if first in _PROTOCOLS:
        return _PROTOCOLS[first] + ("" if modality == alone else of + modality)
    return protocol.replace("->", "→")
