"""The training loop, its checkpoints, resuming, validation and history; it knows a task by its `TrainingLoss` only."""
