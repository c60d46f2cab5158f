"""Generators of raw data that looks like the real thing, for the demo profiles and the tests.

`era5_sample`, `weather_text_sample` -> `generate.py` (files in `weather_files`, captions in `weather_captions`)
`fire_sample` -> `fire.py` (one fire in `fire_simulation`, its spread in `fire_spread`)
`image_text_sample` -> `scenes.py` (`scene_model` and `scene_drawing`; `website` serves them badly)
"""
