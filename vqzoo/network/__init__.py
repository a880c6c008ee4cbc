"""From an artifact to a network that runs, and back."""
