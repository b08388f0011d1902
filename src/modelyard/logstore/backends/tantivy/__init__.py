"""The log store embedded in the server's process, on tantivy."""
