"""Shipped fakes of the ports, and the conformance suites that every backend of a port has to pass."""
