"""The nouns: frozen data that every other module speaks. Standard library only."""
