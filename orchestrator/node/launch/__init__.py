"""Start the processes of trials, most of them by forking a warm process."""
