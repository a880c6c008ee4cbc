"""What a network costs to run: load time, latency and memory, each runtime in its own process."""
