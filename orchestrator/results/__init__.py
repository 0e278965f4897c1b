"""What a person asks of a manifest; no terminal here."""
