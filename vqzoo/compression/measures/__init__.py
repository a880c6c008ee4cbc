"""What was compressed, and how far it is from the original."""
