"""A Hub-compatible server on loopback, for tests."""
