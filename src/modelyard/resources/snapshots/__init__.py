"""Source snapshots: the very source that a training ran with, kept by the platform."""
