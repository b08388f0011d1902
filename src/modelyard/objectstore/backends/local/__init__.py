"""Our own store: an index in the platform's database, blobs in a directory or in a store that has a URL."""
