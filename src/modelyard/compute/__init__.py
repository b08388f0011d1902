"""Where workloads run: the port, and a folder per backend."""
