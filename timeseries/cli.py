"""What the time-series vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, Modality, SystemEntry, Vertical

_COMMANDS = "counterpoint.timeseries.commands"
_CONFIGS = "counterpoint.timeseries.configs"
_GALLERY = "counterpoint.timeseries.gallery"
_PROTOCOLS = "counterpoint.timeseries.protocols:protocols"

vertical = Vertical(
    name="timeseries",
    package="counterpoint.timeseries",
    summary="biosignals and activity sensors",
    extra="timeseries",
    systems=(
        SystemEntry(
            name="ts2vec",
            status="ready",
            paper="Yue et al., TS2Vec: Towards Universal Representation of Time Series, AAAI 2022",
            summary="a representation per time step from two overlapping crops, contrasted across samples and time",
            needs="unlabelled windows (the embedded ECG generator by default)",
            config=f"{_CONFIGS}:TS2VecConfig",
            system="counterpoint.timeseries.ts2vec:TS2Vec",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="comet",
            status="ready",
            paper="Wang et al., Contrast Everything: A Hierarchical Contrastive Framework for Medical Time-Series, "
            "NeurIPS 2023",
            summary="contrast at the levels of patient, trial, sample and observation, for diagnosis with few labels",
            needs="windows with patient and trial ids (the embedded ECG generator by default)",
            config=f"{_CONFIGS}:CometConfig",
            system="counterpoint.timeseries.comet:Comet",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="frame-projections",
            status="experimental",
            missing="2: encoders and Gabor frame are ours",
            paper="Learning Without Augmenting: Unsupervised Time Series Representation Learning via Frame "
            "Projections, NeurIPS 2025",
            summary="no augmentations: a window is contrasted with its Fourier and Gabor projections",
            needs="unlabelled windows (the embedded ECG generator by default)",
            config=f"{_CONFIGS}:FrameProjectionsConfig",
            system="counterpoint.timeseries.frame_projections:FrameProjections",
            protocols=_PROTOCOLS,
        ),
        SystemEntry(
            name="dbpm",
            status="ready",
            paper="Lan et al., Towards Enhancing Time Series Contrastive Learning: A Dynamic Bad Pair Mining "
            "Approach, ICLR 2024",
            summary="weak-strong instance contrast that finds noisy and faulty positive pairs and weights them down",
            needs="unlabelled windows (the embedded ECG generator by default)",
            config=f"{_CONFIGS}:DBPMSystemConfig",
            system="counterpoint.timeseries.dbpm:DBPM",
            protocols=_PROTOCOLS,
        ),
    ),
    importers=(
        Importer("wfdb", "PhysioNet records: a .hea header, or a folder and all below it", f"{_COMMANDS}:import_wfdb"),
        Importer("edf", "EDF and EDF+ recordings: a file, or a folder and all below it", f"{_COMMANDS}:import_edf"),
        Importer("ucr", "UCR/UEA archive sets: .ts, .arff, .txt, .tsv", f"{_COMMANDS}:import_ucr"),
        Importer("ptbxl", "PTB-XL: ptbxl_database.csv, its folds and SCP statements", f"{_COMMANDS}:import_ptbxl"),
        Importer("bids", "BIDS-EEG: EDF recordings with events, channels, participants", f"{_COMMANDS}:import_bids"),
        Importer("arrays", "CSV, Parquet, .npy and .npz recordings", f"{_COMMANDS}:import_arrays"),
    ),
    data_check="counterpoint.timeseries.importers:check_row",
    simulate=f"{_COMMANDS}:simulate",
    preview=f"{_COMMANDS}:preview",
    demo=f"{_COMMANDS}:demo",
    modalities=(
        Modality("signal", read=f"{_GALLERY}:query", picture=f"{_GALLERY}:picture", caption=f"{_GALLERY}:caption"),
    ),
    samples_from="counterpoint.timeseries.given:samples_from",
    checks="counterpoint.timeseries.checks:CHECKS",
)
