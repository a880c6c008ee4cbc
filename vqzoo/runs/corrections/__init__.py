"""What corrects a compressed network without labels, behind its compression."""
