"""Fields whose queries are networks: one dense vector per document, and a graph of nearest documents to search them by."""
