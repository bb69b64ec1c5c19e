"""Networks of torch: loading, heads, 8-bit integers, packed weights."""
