"""One self-contained HTML file that shows a run: figures with intervals, curves, maps, galleries, configuration."""

from counterpoint.common.report.builder import Chip, GalleryRow, Report
from counterpoint.common.report.media import Media

__all__ = ["Chip", "GalleryRow", "Media", "Report"]
