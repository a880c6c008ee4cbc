"""Inner loops of error feedback on the CPU."""
