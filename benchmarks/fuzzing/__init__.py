"""Mutated inputs, and processes that show what becomes of them; see benchmarks/fuzz.py."""
