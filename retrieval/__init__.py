"""What computes: encode, search, build and answer."""
