"""The front door: the port, and a folder per backend."""
