"""Manifests, validation, group-safe splits, datasets, batch samplers and the file cache."""

from counterpoint.common.lazy import lazy_exports

_PACKAGE = "counterpoint.common.data"

# On first use, because a process that only reads files has no need of torch.
__getattr__, __dir__ = lazy_exports(
    _PACKAGE,
    {
        name: f"{_PACKAGE}.{module}"
        for module, names in {
            "cache": ("Cache",),
            "dataset": ("ManifestDataset", "group_codes", "synthetic_part"),
            "manifest": ("Manifest",),
            "samplers": (
                "BatchSampler",
                "ClusterDisjointBatchSampler",
                "GroupUniqueBatchSampler",
                "HardNegativeBatchSampler",
                "SequentialSampler",
                "ShuffleSampler",
                "WeightedSampler",
                "WithinClusterBatchSampler",
            ),
            "links": ("Links",),
            "samples": ("BadSample", "ListSamples", "Part", "Samples", "collate"),
            "shards": ("ShardReader", "ShardShuffleSampler", "index_shards", "write_shards"),
            "split_duplicates": ("NearDuplicate", "check_near_duplicates", "near_duplicates"),
            "split_rules": ("split_by",),
            "splits": ("SplitSummary", "check_leakage", "split_by_group", "split_hash"),
            "validate": ("BadRow", "ValidationReport", "validate_manifest"),
        }.items()
        for name in names
    },
)
