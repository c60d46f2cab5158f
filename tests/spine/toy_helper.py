"""A helper of the toy stages, in a module of its own."""


def square(number: int) -> int:
    """Return the square."""
    return number * number
