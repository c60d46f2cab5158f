"""Captions of weather: reading them, and the places, numbers and events they name.

Stages:

    weather_captions  gather.py

What generated texts claim is compared with captions in `checks.py`.
"""
