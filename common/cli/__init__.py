"""The command line: the same verbs for every vertical. Nothing here imports torch before a verb runs."""

from counterpoint.common.vertical import Importer, ImportReport, Modality, Outcome, Rejected, SystemEntry, Vertical

__all__ = ["ImportReport", "Importer", "Modality", "Outcome", "Rejected", "SystemEntry", "Vertical"]
