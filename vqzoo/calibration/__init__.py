"""What unlabelled images tell: layer inputs, and repair."""
