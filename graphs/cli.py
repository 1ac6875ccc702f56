"""What the graphs vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_COMMANDS = "counterpoint.graphs.commands"
_CONFIGS = "counterpoint.graphs.configs"
_GALLERY = "counterpoint.graphs.gallery"
_SHOWN = {"picture": f"{_GALLERY}:picture", "caption": f"{_GALLERY}:caption"}

vertical = Vertical(
    name="graphs",
    package="counterpoint.graphs",
    summary="molecules and circuits",
    extra="graphs",
    systems=(
        SystemEntry(
            name="kcl",
            status="ready",
            paper="Fang et al., Molecular Contrastive Learning with Chemical Element Knowledge Graph, AAAI 2022",
            summary="a molecule against its twin augmented with facts about its elements",
            needs="unlabelled SMILES; extra graphs",
            config=f"{_CONFIGS}:KCLConfig",
            system="counterpoint.graphs.molecules.kcl:KCL",
        ),
        SystemEntry(
            name="graphcl",
            status="experimental",
            missing="1: the denominator is our reading",
            paper="You et al., Graph Contrastive Learning with Augmentations, NeurIPS 2020",
            summary="two augmented copies of each molecule; the baseline in the same harness",
            needs="unlabelled SMILES; extra graphs",
            config=f"{_CONFIGS}:GraphCLConfig",
            system="counterpoint.graphs.molecules.graphcl:GraphCL",
        ),
        SystemEntry(
            name="circuitgcl",
            status="ready",
            paper="Shen et al., Transferable Parasitic Estimation via Graph Contrastive Learning and Label Rebalancing "
            "in AMS Circuits, 2025",
            summary="representation scattering on circuit graphs, for capacitances of other circuits",
            needs="SPICE netlists, with extracted capacitors, SPEF or DSPF for the labels; extra graphs",
            config=f"{_CONFIGS}:CircuitGCLConfig",
            system="counterpoint.graphs.circuits.circuitgcl:CircuitGCL",
            protocols="counterpoint.graphs.circuits.transfer:protocols",
        ),
        SystemEntry(
            name="gcool",
            status="experimental",
            missing="2: multiplex graphs are absent",
            paper="Li, Jing, Tong, Graph Communal Contrastive Learning, WWW 2022",
            summary="node representations learnt together with communities",
            needs="one attributed graph (.npz, .pt, Planetoid); extra graphs",
            config=f"{_CONFIGS}:GCoolConfig",
            system="counterpoint.graphs.nodes.gcool:GCool",
        ),
        SystemEntry(
            name="pamc",
            status="ready",
            paper="Kulatilleke, Portmann, Chandra, Efficient block contrastive learning via parameter-free meta-node "
            "approximation, 2022",
            summary="clusters an attributed graph; negatives are cluster sums, linear in the nodes",
            needs="one attributed graph (.npz, .pt, Planetoid); extra graphs",
            config=f"{_CONFIGS}:PamCConfig",
            system="counterpoint.graphs.nodes.pamc:PamC",
        ),
        SystemEntry(
            name="grace",
            status="ready",
            paper="Zhu et al., Deep Graph Contrastive Representation Learning, 2020",
            summary="each node against all nodes of two views; a baseline",
            needs="one attributed graph (.npz, .pt, Planetoid); extra graphs",
            config=f"{_CONFIGS}:GRACEConfig",
            system="counterpoint.graphs.nodes.grace:GRACE",
        ),
        SystemEntry(
            name="bgrl",
            status="experimental",
            missing="1: no official numbers are frozen",
            paper="Thakoor et al., Large-Scale Representation Learning on Graphs via Bootstrapping, ICLR 2022",
            summary="an online encoder predicts a momentum target's view; a baseline without negatives",
            needs="one attributed graph (.npz, .pt, Planetoid); extra graphs",
            config=f"{_CONFIGS}:BGRLConfig",
            system="counterpoint.graphs.nodes.bgrl:BGRL",
        ),
        SystemEntry(
            name="meow",
            status="experimental",
            missing="2: features given per meta-path are not read; its claims are not checked",
            paper="Yu, Li, Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Weighted Negative "
            "Samples, SDM 2023",
            summary="nodes of one type by meta-paths over the others; negatives weighted by clusters",
            needs="one heterogeneous graph (`data import hetero`) with features of the target type; extra graphs",
            config="counterpoint.graphs.hetero.configs:MeowConfig",
            system="counterpoint.graphs.hetero.meow:Meow",
        ),
    ),
    importers=(
        Importer("molecules", "CSV, TSV, SMILES or SDF of molecules, with labels", f"{_COMMANDS}:import_molecules"),
        Importer("circuits", "SPICE netlists, with SPEF or DSPF beside them", f"{_COMMANDS}:import_circuits"),
        Importer("hetero", "a folder of edge lists between node types, or a HeteroData", f"{_COMMANDS}:import_hetero"),
    ),
    data_check="counterpoint.graphs.importers:check_row",
    simulate=f"{_COMMANDS}:simulate",
    preview=f"{_COMMANDS}:preview",
    demo=f"{_COMMANDS}:demo",
    verbs=(OwnVerb("study", "which model to use for a property of your own molecules", f"{_COMMANDS}:study"),),
    modalities=(
        Modality("molecule", read=f"{_GALLERY}:query", parse=f"{_GALLERY}:query_text", **_SHOWN),
        Modality("knowledge", read=f"{_GALLERY}:query", parse=f"{_GALLERY}:query_text", **_SHOWN),
        Modality("node", **_SHOWN),
    ),
    samples_from="counterpoint.graphs.given:samples_from",
    checks="counterpoint.graphs.checks:CHECKS",
)
