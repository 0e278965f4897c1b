"""Orchestrate hyper-parameter sweeps on GPUs: every setting kept, every result found, any trial rerun."""

__version__ = "0.2.0"
