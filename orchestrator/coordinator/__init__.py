"""The drive of a sweep: plan it, run what is missing, record what happens."""
