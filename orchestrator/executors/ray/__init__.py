"""Attempts on a Ray cluster. The only user of Ray."""
