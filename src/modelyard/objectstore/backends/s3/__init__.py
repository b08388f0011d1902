"""A remote S3-compatible store, reached with the credentials that an admin gave."""
