"""What a trial runs: a function."""
