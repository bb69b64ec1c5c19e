"""A first search: a few texts, an index in a temporary folder, results with their explanation."""

from lexmax import Retriever

TEXTS = [
    "The liver makes bile, which digests fat.",
    "Vitamin D helps the body to absorb calcium.",
    "Aspirin thins the blood.",
]

with Retriever.from_texts(TEXTS, encoders=["bm25"]) as retriever:
    best = retriever.search("which vitamin absorbs calcium?", k=1, explain=True)[0]
    print(best.text)
    for term in best.explanation.stages[0].fields[0].terms:
        print(f"  {term.term:10} {term.score:.2f}")
