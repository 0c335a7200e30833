"""Pictures and videos: from a file to the tensor that a visual encoder reads."""
