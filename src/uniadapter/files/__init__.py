"""Files and their content: written all or nothing, checked before use."""
