"""An index that lives: build, add, replace, delete; a reader keeps its commit until it reloads."""

import tempfile
from pathlib import Path

from lexmax import Retriever, add_to_index, build_index

with tempfile.TemporaryDirectory() as folder:
    index = Path(folder) / "notes"
    build_index(documents=[{"id": "mon", "text": "Call the plumber"}], out=index, encoders=["bm25"])
    with Retriever.open(index) as reader:
        add_to_index(path=index, documents=[{"id": "tue", "text": "Pay the plumber"}])
        print("before reload:", [hit.doc_id for hit in reader.search("plumber")])
        reader.reload()
        print("after reload: ", [hit.doc_id for hit in reader.search("plumber")])
        reader.add([{"id": "mon", "text": "Call the electrician"}], replace=True)
        reader.delete(["tue"])
        print("at the end:   ", [hit.doc_id for hit in reader.search("plumber")], reader.search("electrician")[0].text)
