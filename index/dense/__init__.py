"""Dense fields: one vector per document or several, scanned whole, by lists or codes, or searched along a graph."""
