"""Followers of the manifest that show its trials elsewhere, each in a process of its own."""
