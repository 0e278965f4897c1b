"""What several parts of the node need: paths, processes, messages."""
