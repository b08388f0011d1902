"""One module per kind of artifact, all behind the contract in `modelyard.serving.contract`."""
