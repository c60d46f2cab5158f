"""Generators of raw data that looks like the real thing, for the demo profiles and the tests."""
