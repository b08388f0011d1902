"""Searchable logs: the port, and a folder per backend."""
