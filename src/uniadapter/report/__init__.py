"""A run's numbers and pictures for people: `metrics.json`, tables, curves and one self-contained page."""

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
from uniadapter.report.queries import QueryExample, RankedItem
from uniadapter.report.tables import markdown_table, table
from uniadapter.report.texts import TextExample

__all__ = [
    "Metrics",
    "MetricsLike",
    "QueryExample",
    "RankedItem",
    "ReportError",
    "Row",
    "TextExample",
    "curves",
    "markdown_table",
    "read_history",
    "read_metrics",
    "table",
    "write_metrics",
    "write_report",
]
