"""Metrics, reranking and comparisons."""
