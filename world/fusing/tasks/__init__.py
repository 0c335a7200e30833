"""The tasks of the world, in the 3-D style: ``python -m world.fusing.tasks`` writes ``.cache/world/tasks``."""
