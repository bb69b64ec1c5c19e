"""The encoders of fields as models that other tools call: embeddings and reranking."""
