"""Wildfire: archives of fires to token caches, trained spread models and their honest evaluation."""
