"""What the recommendation vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_COMMANDS = "counterpoint.recsys.commands"
_CONFIGS = "counterpoint.recsys.configs"
_GALLERY = "counterpoint.recsys.gallery"
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
    modalities=(
        Modality("user", parse=f"{_GALLERY}:parse", caption=f"{_GALLERY}:caption"),
        Modality("item", parse=f"{_GALLERY}:parse", caption=f"{_GALLERY}:caption"),
    ),
    verbs=(
        OwnVerb("recommend", "items for a user, for a newcomer, or for everybody as Parquet", f"{_COMMANDS}:recommend"),
    ),
)  # fmt: skip
