"""The command line: one file per command of `mmnas`, named after it."""
