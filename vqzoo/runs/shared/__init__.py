"""What runs on the same dense model and images share: it is computed once."""
