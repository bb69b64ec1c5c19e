"""Facts about an index that are no secrets: all but places on this machine."""

import os
from pathlib import Path
from typing import Any


def without_places(facts: Any) -> Any:
    """Cut every path down to its last name; a model's id, which looks like one, stays whole."""
    if isinstance(facts, dict):
        return {name: without_places(fact) for name, fact in facts.items()}
    if isinstance(facts, list | tuple):
        return [without_places(fact) for fact in facts]
    if isinstance(facts, str) and "/" in facts:
        # os.path takes any string, where Path.exists raises at a long one.
        is_place = facts.startswith(("/", ".", "~")) or os.path.exists(facts)  # noqa: PTH110
        return Path(facts).name if is_place else facts
    return facts
