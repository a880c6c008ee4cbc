"""Importers of state dicts that torch wrote."""
