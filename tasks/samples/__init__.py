"""Generators of raw data that looks like the real thing, for the demo profiles and the tests.

Stages:

    era5_sample, weather_text_sample  generate.py
    fire_sample                       fire.py
    image_text_sample                 scenes.py
"""
