"""Distributed training that gives the same result as one process: gathering of rows, random seeds."""
