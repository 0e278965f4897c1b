"""A sweep's folder: its paths, who holds it, and requests to its coordinator."""
