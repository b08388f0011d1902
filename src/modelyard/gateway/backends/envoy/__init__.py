"""The gateway port on Envoy: one Envoy process, configured by files that it watches."""
