"""What can be configured: one pydantic schema per pipeline, and the YAML profiles that fill it."""
