"""What is drawn: packages, the concepts chosen from them, sprites, canvases."""
