"""Reading records of a file that need not be in memory: backends, extents, and a reader that survives what disks do."""
