"""Objects and volumes: path values, the port, and a folder per backend."""
