"""Searchable log lines."""
