"""Tar shards of pictures or videos with their texts, in WebDataset's convention: found, counted, read and written."""
