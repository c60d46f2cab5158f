"""How each stage works, one file or folder per stage family."""

IN_KEY = False
