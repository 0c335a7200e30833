"""Decoding of pictures and videos to the tensors that a visual encoder takes."""
