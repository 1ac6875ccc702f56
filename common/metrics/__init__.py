"""Representation evaluation: functions on feature tensors that return dataclasses with `as_dict()`."""

from counterpoint.common.metrics.bootstrap import (
    Interval,
    PairedDifference,
    bootstrap_columns,
    bootstrap_interval,
    bootstrap_weights,
    paired_difference,
    t_interval,
)
from counterpoint.common.metrics.calibration import Calibration, calibration, fit_temperature
from counterpoint.common.metrics.classification import Scores, auroc, score_classes, score_multilabel, score_regression
from counterpoint.common.metrics.clustering import Clustering, cluster, hungarian_accuracy
from counterpoint.common.metrics.compare import Comparison, compare_evaluations, lower_is_better
from counterpoint.common.metrics.control import Control, shuffled_control
from counterpoint.common.metrics.evaluate import Evaluation, evaluate
from counterpoint.common.metrics.fewshot import Episodes, LabelEfficiency, few_shot, label_efficiency, simpleshot
from counterpoint.common.metrics.knn import KNN, knn
from counterpoint.common.metrics.label_free import (
    LabelFree,
    alignment,
    alpha_req,
    covariance_rank,
    entropy_rank,
    label_free,
    lidar,
    mean_cosine,
    modality_gap,
    nesum,
    rankme,
    rankme_from_gram,
    singular_values,
    stable_rank,
    std_of_normalized,
    tolerance,
    uniformity,
)
from counterpoint.common.metrics.labels import LabelSet, encode_labels
from counterpoint.common.metrics.probe import Probe, logistic_probe, ridge_probe
from counterpoint.common.metrics.registry import PROTOCOLS, Protocol, Split, protocol
from counterpoint.common.metrics.result import Result, plain
from counterpoint.common.metrics.retrieval import Retrieval, RetrievalResult, rank_queries, retrieval
from counterpoint.common.metrics.robustness import (
    CORRUPTIONS,
    CorruptionSweep,
    MissingModality,
    corruption_sweep,
    missing_modality,
)
from counterpoint.common.metrics.similarity import CCA, cca, cka, layer_grid, mutual_knn
from counterpoint.common.metrics.zeroshot import prompt_ensemble, zero_shot

__all__ = [
    "CCA",
    "CORRUPTIONS",
    "KNN",
    "PROTOCOLS",
    "Calibration",
    "Clustering",
    "Comparison",
    "Control",
    "CorruptionSweep",
    "Episodes",
    "Evaluation",
    "Interval",
    "LabelEfficiency",
    "LabelFree",
    "LabelSet",
    "MissingModality",
    "PairedDifference",
    "Probe",
    "Protocol",
    "Result",
    "Retrieval",
    "RetrievalResult",
    "Scores",
    "Split",
    "alignment",
    "alpha_req",
    "auroc",
    "bootstrap_columns",
    "bootstrap_interval",
    "bootstrap_weights",
    "calibration",
    "cca",
    "cka",
    "cluster",
    "compare_evaluations",
    "corruption_sweep",
    "covariance_rank",
    "encode_labels",
    "entropy_rank",
    "evaluate",
    "few_shot",
    "fit_temperature",
    "hungarian_accuracy",
    "knn",
    "label_efficiency",
    "label_free",
    "layer_grid",
    "lidar",
    "logistic_probe",
    "lower_is_better",
    "mean_cosine",
    "missing_modality",
    "modality_gap",
    "mutual_knn",
    "nesum",
    "paired_difference",
    "plain",
    "prompt_ensemble",
    "protocol",
    "rank_queries",
    "rankme",
    "rankme_from_gram",
    "retrieval",
    "ridge_probe",
    "score_classes",
    "score_multilabel",
    "score_regression",
    "shuffled_control",
    "simpleshot",
    "singular_values",
    "stable_rank",
    "std_of_normalized",
    "t_interval",
    "tolerance",
    "uniformity",
    "zero_shot",
]
