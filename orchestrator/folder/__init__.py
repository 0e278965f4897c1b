"""A sweep's folder: where things stand in it, who holds it, what is asked of its coordinator."""
