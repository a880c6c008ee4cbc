"""Recovery of a compressed network by a few unlabelled images."""
