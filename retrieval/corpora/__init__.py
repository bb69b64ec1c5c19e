"""Documents from files, tables and Python objects."""
