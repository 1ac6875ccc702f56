"""What the medical vertical tells the command line; importing it costs nothing."""

from counterpoint.common.vertical import Importer, Vertical

_COMMANDS = "counterpoint.medical.commands"

vertical = Vertical(
    name="medical",
    package="counterpoint.medical",
    summary="CT and MR volumes with radiology reports",
    extra="medical",
    importers=(
        Importer("nifti", "NIfTI (.nii, .nii.gz) and NRRD volumes: a file, or a folder", f"{_COMMANDS}:import_nifti"),
        Importer("dicom", "folders of DICOM files: CT and MR series", f"{_COMMANDS}:import_dicom"),
    ),
    data_check="counterpoint.medical.reading:check_row",
)
