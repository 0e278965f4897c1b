"""The nouns: frozen data that every other module uses. Standard library only."""
