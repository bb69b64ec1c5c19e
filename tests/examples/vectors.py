"""Vectors that another program made: import them, and search them without any model."""

import json
import tempfile
from pathlib import Path

from lexmax import Retriever, import_vectors

VECTORS = {
    "cats": {"cat": 2.1, "purr": 1.4, "pet": 0.6},
    "dogs": {"dog": 2.0, "bark": 1.5, "pet": 0.7},
    "birds": {"bird": 2.2, "sing": 1.1},
}

with tempfile.TemporaryDirectory() as folder:
    vectors, index = Path(folder) / "vectors.jsonl", Path(folder) / "index"
    vectors.write_text("".join(json.dumps({"id": name, "vector": vector}) + "\n" for name, vector in VECTORS.items()))
    import_vectors([vectors], index, field="mine")
    with Retriever.open(index) as retriever:
        # A list of queries; rows may also be those of a SciPy, numpy or torch matrix over term numbers.
        for found in retriever.search_vectors([{"pet": 1.0, "bark": 0.5}, {"sing": 1.0}], k=2):
            print([(hit.doc_id, round(hit.score, 2)) for hit in found])
