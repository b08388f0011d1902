"""Experiments: groups of trainings."""
