"""Captions of weather: reading them, the places, numbers and events they name, and scores of generated ones."""
