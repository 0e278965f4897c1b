"""An attempt seen from outside: its output, limits, memory and files."""
