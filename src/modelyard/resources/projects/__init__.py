"""Projects: the boundary of everything that belongs together."""
