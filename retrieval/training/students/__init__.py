"""Students: networks that train, and that save themselves in layouts other programs read."""
