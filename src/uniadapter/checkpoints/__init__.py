"""Weights on disk: pre-trained models from any source, and adapter folders."""
