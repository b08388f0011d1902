"""The resource groups of a client, one module for each noun. They are written once, as coroutines."""
