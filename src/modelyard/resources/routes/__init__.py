"""System resource: something reachable through the gateway."""
