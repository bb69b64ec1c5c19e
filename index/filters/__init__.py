"""Filters: expressions and JSON trees of conditions on metadata -> one bitmap for each segment."""
