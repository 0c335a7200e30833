"""Search in one's own pictures and videos: an index on disk, built once and kept up to date, and queries to it."""
