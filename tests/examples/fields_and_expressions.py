"""Several vector fields in one index, a field that is added later, and search expressions over them."""

import tempfile
from pathlib import Path

from lexmax import Retriever, add_field, build_index

DOCUMENTS = ["Der Hund bellt die Katzen an.", "Eine Katze schnurrt.", "The dogs bark at cats.", "Birds sing."]

with tempfile.TemporaryDirectory() as folder:
    index = Path(folder) / "index"
    build_index(documents=DOCUMENTS, out=index, encoders=["english=bm25"])
    add_field(index, "german=bm25,stemmer=german")
    with Retriever.open(index) as retriever:
        for search in ("english", "english + german", "(english + german) > 0.3*english + 0.7*german"):
            found = retriever.search("Katzen cats", search=search, k=3)
            print(f"{search:50}", [hit.text for hit in found])
