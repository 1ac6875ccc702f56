"""What the recommendation vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_COMMANDS = "counterpoint.recsys.commands"
_CONFIGS = "counterpoint.recsys.configs"
_GALLERY = "counterpoint.recsys.gallery"
_CONTRAST = "counterpoint.recsys.contrast_configs"
_PROTOCOLS = "counterpoint.recsys.evaluation.protocol:protocols"

vertical = Vertical(
    name="recsys",
    package="counterpoint.recsys",
    summary="recommendation: interaction logs with item features",
    extra="recsys",
    systems=(
        SystemEntry(
            name="popularity",
            status="experimental",
            paper="the items that most users met; Cremonesi et al., Performance of Recommender Algorithms on Top-N "
            "Recommendation Tasks, RecSys 2010",
            summary="baseline: everybody is offered what most users met",
            needs="interactions (the embedded generator by default)",
            config=f"{_CONFIGS}:PopularityConfig",
            system="counterpoint.recsys.popularity:Popularity",
            protocols=_PROTOCOLS,
            shared=(),
        ),
        SystemEntry(
            name="item-knn",
            status="experimental",
            paper="Sarwar et al., Item-Based Collaborative Filtering Recommendation Algorithms, WWW 2001",
            summary="baseline: items whose users are those of the items that one met",
            needs="interactions (the embedded generator by default)",
            config=f"{_CONFIGS}:ItemKNNConfig",
            system="counterpoint.recsys.item_knn:ItemKNN",
            protocols=_PROTOCOLS,
            shared=(),
        ),
        SystemEntry(
            name="lightgcn",
            status="experimental",
            paper="He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR "
            "2020",
            summary="embeddings passed along the graph of users and items, ranked by BPR",
            needs="interactions (the embedded generator by default)",
            config=f"{_CONFIGS}:LightGCNConfig",
            system="counterpoint.recsys.lightgcn:LightGCN",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="vbpr",
            status="experimental",
            paper="He and McAuley, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI 2016",
            summary="factors of ids beside factors of the items' features, ranked by BPR",
            needs="interactions with item features (the embedded generator by default)",
            config=f"{_CONFIGS}:VBPRConfig",
            system="counterpoint.recsys.vbpr:VBPR",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="bm3",
            status="experimental",
            paper="Zhou et al., Bootstrap Latent Representations for Multi-modal Recommendation, WWW 2023",
            summary="users, items and modalities predict one another's dropped-out vectors; no negatives",
            needs="interactions with item features (the embedded generator by default)",
            config=f"{_CONTRAST}:BM3Config",
            system="counterpoint.recsys.bm3:BM3",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="rearm",
            status="experimental",
            paper="Wang et al., Refining Contrastive Learning and Homography Relations for Multi-Modal "
            "Recommendation, MM 2025",
            summary="graphs among users and among items, attention between modalities, what both say in common",
            needs="interactions with two item features (the embedded generator by default)",
            config=f"{_CONTRAST}:REARMConfig",
            system="counterpoint.recsys.rearm:REARM",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="ceaa",
            status="experimental",
            paper="after Zhang et al., Semantic Item Graph Enhancement for Multimodal Recommendation, arXiv "
            "2508.06154, 2025; its equations are not public: our formulation",
            summary="semantic item graphs enhanced by co-occurrence, noise views, behaviour as the modalities' anchor",
            needs="interactions with item features (the embedded generator by default)",
            config=f"{_CONTRAST}:CEAAConfig",
            system="counterpoint.recsys.ceaa:CEAA",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="sasrec",
            status="experimental",
            paper="Kang and McAuley, Self-Attentive Sequential Recommendation, ICDM 2018",
            summary="a causal transformer over a user's items tells the next one at every place",
            needs="interactions in the order of time (the embedded generator by default)",
            config=f"{_CONTRAST}:SASRecConfig",
            system="counterpoint.recsys.sasrec:SASRec",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="mclrec",
            status="experimental",
            paper="Qin et al., Meta-optimized Contrastive Learning for Sequential Recommendation, SIGIR 2023",
            summary="altered prefixes and learnt views of them, contrasted beside the next item",
            needs="interactions in the order of time (the embedded generator by default)",
            config=f"{_CONTRAST}:MCLRecConfig",
            system="counterpoint.recsys.mclrec:MCLRec",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
        SystemEntry(
            name="two-tower",
            status="experimental",
            paper="Yao et al., Self-supervised Learning for Large-scale Item Recommendations, CIKM 2021",
            summary="towers over fields of users and items, corrected for popularity, self-supervised on rare items",
            needs="interactions; columns of users and items and item features where there are any",
            config=f"{_CONTRAST}:TwoTowerConfig",
            system="counterpoint.recsys.two_tower:TwoTower",
            protocols=_PROTOCOLS,
            shared=("labelfree",),
        ),
    ),
    importers=(
        Importer("interactions", "Parquet, CSV, TSV or JSONL; a file, or a folder of parts",
                 f"{_COMMANDS}:import_interactions"),
        Importer("recbole", "RecBole's atomic files: .inter with .item and .user", f"{_COMMANDS}:import_recbole"),
        Importer("mmrec", "MMRec's .inter with x_label, features in row order", f"{_COMMANDS}:import_mmrec"),
        Importer("sequences", "text: a user and its items in the order of time a line",
                 f"{_COMMANDS}:import_sequences"),
        Importer("edges", "arrays of edges: train.npy, valid.npy, test.npy", f"{_COMMANDS}:import_edges"),
    ),
    check=f"{_COMMANDS}:check",
    split=f"{_COMMANDS}:split",
    simulate=f"{_COMMANDS}:simulate",
    demo=f"{_COMMANDS}:demo",
    checks="counterpoint.recsys.checks:CHECKS",
    modalities=(
        Modality("user", parse=f"{_GALLERY}:parse", caption=f"{_GALLERY}:caption"),
        Modality("item", parse=f"{_GALLERY}:parse", caption=f"{_GALLERY}:caption"),
    ),
    verbs=(
        OwnVerb("recommend", "items for a user, for a newcomer, or for everybody as Parquet", f"{_COMMANDS}:recommend"),
    ),
)  # fmt: skip
