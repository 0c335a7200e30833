"""Tasks: what is trained and how it is measured; the trainer knows no more of them than a loss."""
