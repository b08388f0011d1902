"""A remote OpenStack Swift, reached with the credentials that an admin gave."""
