"""Fewer bits per weight."""
