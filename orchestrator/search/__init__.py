"""Which point of the space is a trial, and in which order."""
