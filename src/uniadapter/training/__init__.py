"""The training loop and what it keeps: checkpoints, validations, history; it knows tasks by their loss alone."""
