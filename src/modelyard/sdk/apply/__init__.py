"""Resources declared in a file, and what has to be done so that the platform has them."""
