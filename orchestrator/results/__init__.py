"""Answers to what a user asks about a sweep, read from its manifest. The terminal is the business of `cli`."""
