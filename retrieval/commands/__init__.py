"""The commands that build, search and keep an index. Read at every start of the command line, so imported lightly."""
