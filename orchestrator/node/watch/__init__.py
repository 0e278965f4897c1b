"""Watch an attempt from outside: its output, limits, memory and files."""
