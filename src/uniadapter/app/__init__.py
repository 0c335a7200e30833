"""What a user calls: the commands and their Python twins."""
