"""The contracts of the ports as tests: a class each, to be subclassed with fixtures that make the backend."""
