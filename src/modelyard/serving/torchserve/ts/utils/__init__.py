"""See `ts`."""
