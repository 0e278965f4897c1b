"""What happens in the trial's own process."""
