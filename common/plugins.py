"""The plug-ins of a training by name: those of the suite, and those of other packages. Light: nothing of torch.

Another package registers one under the entry-point group `counterpoint.plugins`, as `name = "package.module:entry"`,
where `entry` is a `PluginEntry` and its module imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import entry_points

GROUP = "counterpoint.plugins"
_TRAINERS = "counterpoint.common.trainers"
_CONFIGS = f"{_TRAINERS}.plugin_configs"


@dataclass(frozen=True)
class PluginEntry:
    """A plug-in that `train.plugins` may name.

    Attributes:
        name: as in `--train.plugins NAME --NAME.option value`; a Python name.
        summary: one sentence: what it does to a training.
        paper: where it comes from.
        plugin: `"module:Class"` of the `Plugin`.
        config: `"module:Class"` of its options, a frozen dataclass in a module without torch.

    >>> PluginEntry("mine", "does nothing", "", "m:P", "m:C").as_dict()["name"]
    'mine'
    """

    name: str
    summary: str
    paper: str
    plugin: str
    config: str

    def as_dict(self) -> dict[str, str]:
        """The row that `counterpoint plugins --json` prints, without the options."""
        return {key: value for key, value in asdict(self).items() if key in ("name", "summary", "paper")}


BUILT_IN = (
    PluginEntry(
        "harmonize",
        "projects conflicting gradients of several losses at the embeddings they share",
        "Scaling Multimodal Pre-Training via Cross-Modality Gradient Harmonization, NeurIPS 2022",
        f"{_TRAINERS}.harmonize:Harmonize",
        f"{_CONFIGS}:HarmonizeConfig",
    ),
    PluginEntry(
        "bad_pairs",
        "finds noisy and faulty positive pairs by their losses over the epochs and weighs them down",
        "Lan et al., Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining Approach, ICLR 2024",
        f"{_TRAINERS}.bad_pairs:BadPairs",
        f"{_CONFIGS}:BadPairsConfig",
    ),
    PluginEntry(
        "hard_negatives",
        "fills batches with near neighbours, looked up again as the embeddings change",
        "after Xiong et al., Approximate Nearest Neighbor Negative Contrastive Learning, ICLR 2021 (our reading)",
        f"{_TRAINERS}.hard_negatives:HardNegatives",
        f"{_CONFIGS}:HardNegativesConfig",
    ),
    PluginEntry(
        "old_model",
        "starts from another run and keeps its similarities between two modalities where they were right",
        "Ni et al., Continual Vision-Language Representation Learning with Off-Diagonal Information, ICML 2023",
        f"{_TRAINERS}.continual_learning:OldModel",
        f"{_CONFIGS}:OldModelConfig",
    ),
    PluginEntry(
        "neighbour_batches",
        "takes batches of neighbours on the ground, later of samples that look alike",
        "Deuser et al., Sample4Geo: Hard Negative Sampling For Cross-View Geo-Localisation, ICCV 2023",
        f"{_TRAINERS}.neighbour_batches:NeighbourBatches",
        f"{_CONFIGS}:NeighbourBatchesConfig",
    ),
    PluginEntry(
        "gram_anchor",
        "keeps the similarities between the places of a sample at those of earlier weights",
        "Simeoni et al., DINOv3, 2025 (Gram anchoring)",
        f"{_TRAINERS}.gram_anchor:GramAnchor",
        f"{_CONFIGS}:GramAnchorConfig",
    ),
    PluginEntry(
        "within_clusters",
        "takes every batch from one combination of the clusters of earlier stages",
        "Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning, ECCV 2024",
        f"{_TRAINERS}.multistage_learning:WithinClusters",
        f"{_CONFIGS}:WithinClustersConfig",
    ),
)


def find_plugins() -> dict[str, PluginEntry]:
    """The registered plug-ins by name, the suite's own first.

    >>> list(find_plugins())[:2]
    ['harmonize', 'bad_pairs']
    """
    found = {entry.name: entry for entry in BUILT_IN}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        entry = point.load()
        if not isinstance(entry, PluginEntry) or entry.name != point.name or not entry.name.isidentifier():
            raise TypeError(f"entry point {point.name} = {point.value} of {GROUP} is not a PluginEntry of that name")
        found.setdefault(entry.name, entry)
    return found
