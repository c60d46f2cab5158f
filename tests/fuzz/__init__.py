"""Files that nobody would write, made from good ones, for every reader of foreign bytes.

`case` says what a case may do, `mutate` and `readers` make them, `campaign` runs many and remembers what was found.
"""
