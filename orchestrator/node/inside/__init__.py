"""What runs in the trial's own process."""
