"""Notebooks: a JupyterLab of one's own, with storage that stays."""
