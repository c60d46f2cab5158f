"""Bytes on disk: assets and their manifests, the window store, and how both are read."""

IN_KEY = False
