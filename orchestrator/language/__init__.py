"""The sweep language: from a sweep file to its trials. `planning` is the way in."""
