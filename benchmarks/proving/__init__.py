"""The parts of `benchmarks/prove.py`: what is compared, the runs and their records, and what they amount to."""
