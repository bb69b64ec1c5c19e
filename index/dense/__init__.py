"""Dense fields: one vector per document, scanned whole, by lists or codes, or searched along a graph."""
