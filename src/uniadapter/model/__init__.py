"""UniAdapter inside a backbone: the equations, named sets of adapters, and what the rest may ask of a model."""
