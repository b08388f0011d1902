"""Members of a project: who of the platform's people may use it."""
