"""Manifests, validation, group-safe splits, datasets, batch samplers and the file cache."""

from counterpoint.common.data.cache import Cache
from counterpoint.common.data.dataset import BadSample, ManifestDataset, collate, group_codes
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.samplers import (
    BatchSampler,
    ClusterDisjointBatchSampler,
    GroupUniqueBatchSampler,
    HardNegativeBatchSampler,
    SequentialSampler,
    ShuffleSampler,
    WeightedSampler,
    WithinClusterBatchSampler,
)
from counterpoint.common.data.splits import SplitSummary, check_leakage, split_by_group, split_hash
from counterpoint.common.data.validate import BadRow, ValidationReport, validate_manifest

__all__ = [
    "BadRow",
    "BadSample",
    "BatchSampler",
    "Cache",
    "ClusterDisjointBatchSampler",
    "GroupUniqueBatchSampler",
    "HardNegativeBatchSampler",
    "Manifest",
    "ManifestDataset",
    "SequentialSampler",
    "ShuffleSampler",
    "SplitSummary",
    "ValidationReport",
    "WeightedSampler",
    "WithinClusterBatchSampler",
    "check_leakage",
    "collate",
    "group_codes",
    "split_by_group",
    "split_hash",
    "validate_manifest",
]
