"""What the medical vertical tells the command line; importing it costs nothing."""

from counterpoint.common.formats import Format
from counterpoint.common.vertical import Importer, Modality, OwnVerb, SystemEntry, Vertical

_COMMANDS = "counterpoint.medical.commands"
_CONFIGS = "counterpoint.medical.configs"
_FLAT = "counterpoint.medical.radiograph_configs"
_GALLERY = "counterpoint.medical.gallery"
_SHOWN = {"picture": f"{_GALLERY}:picture", "caption": f"{_GALLERY}:caption", "read": f"{_GALLERY}:query"}

vertical = Vertical(
    name="medical",
    package="counterpoint.medical",
    summary="CT and MR volumes and radiographs with radiology reports",
    extra="medical",
    systems=(
        SystemEntry(
            name="clip-ct",
            status="experimental",
            missing="2: networks and sentence term are ours, no paper's sizes; no gate has been set: see README",
            paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
            summary="baseline: volumes and their reports in one space, equal reports as soft targets",
            needs="volumes with reports (the embedded CT phantom by default)",
            config=f"{_CONFIGS}:ClipCTConfig",
            system="counterpoint.medical.clip_ct:ClipCT",
            protocols="counterpoint.medical.evaluation:protocols",
        ),
        SystemEntry(
            name="velvet-med",
            status="experimental",
            missing="1: only the abstract is public to us: levels, masks and weights are our reading; "
            "2: sizes are ours; over several ranks the local terms contrast each rank's own batch",
            paper="Zhang et al., VELVET-Med: Vision and Efficient Language Pre-training for Volumetric Imaging Tasks "
            "in Medicine, arXiv 2508.12108, 2025",
            summary="volumes and reports, regions and sentences, patches and words contrasted; both also masked",
            needs="volumes with reports (the embedded CT phantom by default)",
            config=f"{_CONFIGS}:VelvetMedConfig",
            system="counterpoint.medical.velvet_med:VelvetMed",
            protocols="counterpoint.medical.evaluation:protocols",
        ),
        SystemEntry(
            name="gemini",
            status="experimental",
            missing="1: restoration is a term of the same step, there a step of its own",
            paper="He et al., Homeomorphism Prior for False Positive and Negative Problem in Medical Image Dense "
            "Contrastive Representation Learning, IEEE TPAMI 2025",
            summary="features of voxels that correspond across patients, along a deformation that is learnt with them",
            needs="volumes of one part of the body (the embedded CT phantom by default)",
            config=f"{_CONFIGS}:GeminiConfig",
            system="counterpoint.medical.gemini:Gemini",
            protocols="counterpoint.medical.scenes:protocols",
        ),
        SystemEntry(
            name="sepclr",
            status="experimental",
            missing="2: 3D networks and views are ours, the paper's are of pictures",
            paper="Louiset et al., Separating common from salient patterns with contrastive representation learning, "
            "ICLR 2024",
            summary="two codes of a volume: what patients share with the healthy, and what only patients have",
            needs="volumes with a column of 0 and 1 (the embedded CT phantom by default)",
            config="counterpoint.medical.separation_configs:CTSepCLRConfig",
            system="counterpoint.medical.ct_sepclr:CTSepCLR",
            protocols="counterpoint.medical.ct_sepclr:protocols",
        ),
        SystemEntry(
            name="supremix",
            status="experimental",
            missing="2: 3D network and views are ours, the paper's are of pictures",
            paper="Wu et al., Mixup Your Own Pairs (SupReMix), 2023",
            summary="volumes in the order of a number known of them (an age), with mixtures as hardest cases",
            needs="volumes with a column of numbers (the embedded CT phantom by default)",
            config="counterpoint.medical.separation_configs:CTSupReMixConfig",
            system="counterpoint.medical.ct_supremix:CTSupReMix",
            protocols="counterpoint.medical.ct_supremix:protocols",
        ),
        SystemEntry(
            name="clip-xr",
            status="experimental",
            missing="2: networks and sizes are ours, no paper's; no gate has been set",
            paper="Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021",
            summary="baseline: radiographs and their reports in one space, equal reports as soft targets",
            needs="radiographs with reports (projections of the embedded phantom by default)",
            config=f"{_FLAT}:ClipXRConfig",
            system="counterpoint.medical.clip_xr:ClipXR",
            protocols="counterpoint.medical.evaluation:flat_protocols",
        ),
        SystemEntry(
            name="m3ae",
            status="experimental",
            missing="2: CLIP's and RoBERTa's weights, from which the released run starts, are not loaded; 3: retrieval "
            "by the matching head is not evaluated, and cosines across modalities are not trained",
            paper="Chen et al., Multi-Modal Masked Autoencoders for Medical Vision-and-Language Pre-Training, MICCAI "
            "2022",
            summary="radiographs and reports restored from what is left of them and from each other, and matched",
            needs="radiographs with reports (projections of the embedded phantom by default)",
            config=f"{_FLAT}:M3AEConfig",
            system="counterpoint.medical.m3ae:M3AE",
            shared=("knn", "probe", "simpleshot", "fewshot", "cluster", "labelfree"),  # cosines across are not trained
        ),
    ),
    importers=(
        Importer("nifti", "NIfTI (.nii, .nii.gz) and NRRD volumes: a file, or a folder", f"{_COMMANDS}:import_nifti"),
        Importer("dicom", "folders of DICOM files: CT and MR series", f"{_COMMANDS}:import_dicom"),
        Importer(
            "radiographs", "PNG, JPEG and DICOM radiographs: a file, or a folder", f"{_COMMANDS}:import_radiographs"
        ),
    ),
    data_check="counterpoint.medical.reading:check_row",
    simulate=f"{_COMMANDS}:simulate",
    preview=f"{_COMMANDS}:preview",
    demo=f"{_COMMANDS}:demo",
    checks="counterpoint.medical.checks:CHECKS",
    modalities=(
        Modality("ct", endings=(".nii", ".nrrd", ".nhdr"), **_SHOWN),
        Modality("volume", **_SHOWN),
        Modality("common", **_SHOWN),
        Modality("salient", **_SHOWN),
        Modality("xr", endings=(".png", ".jpg", ".jpeg", ".dcm"), **_SHOWN),
        Modality("report", endings=(".txt",), parse=f"{_GALLERY}:parse", **_SHOWN),
    ),
    export_formats=(
        Format(
            "monai-bundle",
            "",
            "a MONAI bundle of a volume encoder with its preprocessing, checked against the source",
            "counterpoint.medical.bundle:write_bundle",
        ),
    ),
    verbs=(
        OwnVerb(
            "embed-scan",
            "the embedding of one scan: a NIfTI or NRRD file, a DICOM folder, a radiograph",
            f"{_COMMANDS}:embed_scan",
        ),
        OwnVerb("ground", "where in a scan a sentence is seen: a map as NIfTI in patient space", f"{_COMMANDS}:ground"),
        OwnVerb("segment", "label maps of whole volumes by a finetuned head, as NIfTI", f"{_COMMANDS}:segment"),
    ),
)
