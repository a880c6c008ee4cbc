"""Runs under a budget: checks of the request, and what resuming needs."""
