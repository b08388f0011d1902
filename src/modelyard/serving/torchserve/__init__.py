"""The package `ts` as handlers of PyTorch archives expect it, for images without TorchServe. Put on the path by the archive runtime."""
