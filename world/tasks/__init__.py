"""The tasks of the world, in the 3-D style: ``python -m world.tasks`` writes ``.cache/world/tasks``."""
