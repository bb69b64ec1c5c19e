"""Fixed dimensional encodings: the token vectors of a document in one vector, kept and searched as dense vectors are."""
