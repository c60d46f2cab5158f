"""The way from questions about images to answers."""
