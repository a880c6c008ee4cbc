"""A page that classifies pictures in the browser."""
