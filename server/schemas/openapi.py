"""The OpenAPI document without `anyOf`: alternatives by JSON type are said by ``type``, which code generators understand.

pydantic writes ``str | None`` as two schemas under ``anyOf``. Keywords such as ``maxLength`` speak of one type each, so the
alternatives can stand in one schema with a list of types and mean the same.
"""

from collections.abc import Mapping
from typing import Any


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document whose alternatives are lists of types."""
    flattened = _flat(document, document["components"]["schemas"])
    assert isinstance(flattened, dict)  # noqa: S101  what a mapping becomes
    return flattened


def _flat(node: Any, models: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_flat(each, models) for each in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" not in node:
        return {key: _flat(value, models) for key, value in node.items()}
    merged: dict[str, Any] = {"type": []}
    for option in node["anyOf"]:
        plain = {**models[option["$ref"].rpartition("/")[2]]} if "$ref" in option else {**option}
        merged["type"].append(plain.pop("type"))
        twice = plain.keys() & merged.keys()
        if twice:
            raise TypeError(f"alternatives of one JSON type cannot be merged: {sorted(twice)} in {node}")
        merged |= plain
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    return {**{key: _flat(value, models) for key, value in merged.items()}, **rest}
