"""Retrieval for a language model: several queries at once, filters, and a prompt that cites its passages."""

import asyncio

from lexmax import Retriever

MANUAL = [
    {"id": "valve-1", "title": "Safety valve", "text": "The safety valve opens at 6 bar.", "metadata": {"year": 2024}},
    {"id": "valve-0", "title": "Safety valve", "text": "The safety valve opens at 4 bar.", "metadata": {"year": 1998}},
    {"id": "pump-1", "title": "Pump", "text": "Prime the pump before the first start.", "metadata": {"year": 2024}},
]


async def prompt(retriever: Retriever, question: str) -> str:
    passages = await retriever.asearch(question, k=2, filter={"year": {"$gte": 2020}})
    cited = "\n".join(f"[{passage.doc_id}] {passage.title}: {passage.text}" for passage in passages)
    return f"Answer from these passages alone.\n{cited}\nQuestion: {question}"


async def main() -> None:
    with Retriever.from_texts(MANUAL, encoders=["bm25"]) as retriever:
        questions = ["When does the safety valve open?", "How do I start the pump?"]
        for text in await asyncio.gather(*(prompt(retriever, question) for question in questions)):
            print(text, end="\n\n")


asyncio.run(main())
