"""The command line, and the Python functions for the same operations."""
