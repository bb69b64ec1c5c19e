"""Search expressions: fusion and reranking over the fields of one index."""
