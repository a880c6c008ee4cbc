"""One run, from a recipe to an artifact and its record."""
