"""The programs that a trial can run: a function."""
