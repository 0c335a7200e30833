"""Reading and writing of files: atomic writes, validation of JSON and YAML, error messages."""
