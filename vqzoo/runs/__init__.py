"""A run, from its recipe to an artifact and its record."""
