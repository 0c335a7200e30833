"""The base: its shape, the stages of its pre-training with weights, logs and figures, and the folder made of it."""
