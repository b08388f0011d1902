"""Endpoints, their stages, and the models on them."""
