"""Pieces of the loops that multiply by codes: look-ups, octets, panels."""
