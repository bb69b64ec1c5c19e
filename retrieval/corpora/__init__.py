"""Documents from files, tables and Python objects; queries from files."""
