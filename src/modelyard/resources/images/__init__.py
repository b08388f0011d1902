"""Images: what an instance's environment holds."""
