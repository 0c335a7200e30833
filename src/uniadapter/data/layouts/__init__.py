"""Readers of annotation files, one file per family of layouts; `registry.py` lists them."""
