"""Domain-free nouns. The list is closed: clock, ids, errors, paging, lifecycle, backoff, names, sockets."""
