"""Where attempts run: on a Ray cluster, or on this machine without one."""
