"""How each stage works, one file or folder per stage family."""
