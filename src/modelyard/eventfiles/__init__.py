"""Reads scalars out of TensorFlow's event files, in a process of its own. Knows nothing of the platform."""
