"""Captions of weather: reading them, and the places, numbers and events they name.

`weather_captions` -> `gather.py` (`read` reads CSV files, `regions` finds places)

What a text says is in `numbers` and `events`, whether it is so in `checks`.
"""
