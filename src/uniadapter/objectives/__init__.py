"""Training losses: pure functions on tensors; nothing here knows the model."""
