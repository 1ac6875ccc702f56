"""Manifests, validation, group-safe splits, datasets, batch samplers and the file cache."""

from counterpoint.common.data.cache import Cache
from counterpoint.common.data.dataset import ManifestDataset, group_codes, synthetic_part
from counterpoint.common.data.manifest import Manifest
from counterpoint.common.data.near_duplicates import NearDuplicate, check_near_duplicates, near_duplicates
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
from counterpoint.common.data.samples import BadSample, ListSamples, Part, Samples, collate
from counterpoint.common.data.shards import ShardReader, ShardShuffleSampler, index_shards, write_shards
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
    "ListSamples",
    "Manifest",
    "ManifestDataset",
    "NearDuplicate",
    "Part",
    "Samples",
    "SequentialSampler",
    "ShardReader",
    "ShardShuffleSampler",
    "ShuffleSampler",
    "SplitSummary",
    "ValidationReport",
    "WeightedSampler",
    "WithinClusterBatchSampler",
    "check_leakage",
    "check_near_duplicates",
    "collate",
    "group_codes",
    "index_shards",
    "near_duplicates",
    "split_by_group",
    "split_hash",
    "synthetic_part",
    "validate_manifest",
    "write_shards",
]
