"""What goes over the wire: request and answer bodies as pydantic models.

Requests are strict: no coercion (``{"explain": 0}`` is refused), no unknown fields, no NaN or infinity.
"""
