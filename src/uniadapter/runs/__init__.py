"""The steps of a run, between a config and its results: load, train, save, measure."""
