"""Pure decisions: data in, data out; the time is an argument."""
