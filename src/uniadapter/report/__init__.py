"""Reports of a run: `metrics.json`, tables, curves and a self-contained HTML page."""

from uniadapter.report.metrics import (
    Metrics,
    MetricsLike,
    ReportError,
    Row,
    read_history,
    read_metrics,
    write_metrics,
)
from uniadapter.report.page import write_report
from uniadapter.report.plots import curves
from uniadapter.report.query_cards import QueryExample, RankedItem
from uniadapter.report.tables import markdown_table, table
from uniadapter.report.text_cards import TextExample
from uniadapter.report.thumbnails import Thumbnails
from uniadapter.report.word_looks import WordLook, spotlights

__all__ = [
    "Metrics",
    "MetricsLike",
    "QueryExample",
    "RankedItem",
    "ReportError",
    "Row",
    "TextExample",
    "Thumbnails",
    "WordLook",
    "curves",
    "markdown_table",
    "read_history",
    "read_metrics",
    "spotlights",
    "table",
    "write_metrics",
    "write_report",
]
