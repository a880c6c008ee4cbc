"""`vqzoo report`, and the page that other commands write at their end."""
