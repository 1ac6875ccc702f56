"""One self-contained HTML file that shows a run: figures with intervals, curves, maps, galleries, configuration."""

from counterpoint.common.report.builder import GalleryRow, Report
from counterpoint.common.report.compare import compare_figures, compare_runs
from counterpoint.common.report.media import Media
from counterpoint.common.report.parts import Chip

__all__ = ["Chip", "GalleryRow", "Media", "Report", "compare_figures", "compare_runs"]
