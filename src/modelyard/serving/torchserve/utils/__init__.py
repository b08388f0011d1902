"""See `modelyard.serving.torchserve`."""
