"""Annotation files of every layout, one family a file."""
