"""Scripts that make the embedded world: pictures, concepts, the pre-trained base and its tasks. Not installed."""
