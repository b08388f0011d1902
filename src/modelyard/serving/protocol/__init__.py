"""Pure translation between JSON (or binary bodies) and named arrays; knows neither HTTP servers nor frameworks."""
