"""How a trial's process starts: the warm process it is forked from."""
