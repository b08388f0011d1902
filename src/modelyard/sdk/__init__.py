"""The Python SDK: `modelyard.sdk.client` has `Client` and `AsyncClient`, `modelyard.sdk.errors` what they raise."""
