"""Methods compared on one task: learning rates on validation, seeds on test, each run once, by several processes."""
