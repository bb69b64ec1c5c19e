"""What the server tells of itself: request ids, the access log, metrics."""
