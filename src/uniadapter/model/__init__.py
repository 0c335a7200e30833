"""UniAdapter in a backbone: the equations, named adapter sets, and one interface to every family of models."""
