"""System resource: something that runs on compute."""
