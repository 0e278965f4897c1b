"""What several parts of the node use: paths, processes, memory pages, messages."""
