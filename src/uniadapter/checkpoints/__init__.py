"""Weights on disk: bases of any origin, and folders of adapters."""
