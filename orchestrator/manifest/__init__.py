"""The manifest: all that a sweep decided and measured, in one SQLite file."""
