"""Dense fields: one vector a document, kept as 16- or 32-bit floats and searched by faiss."""
