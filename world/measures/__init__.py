"""What the pre-trained base can do before anything is adapted."""
