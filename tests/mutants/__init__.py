"""Mutation testing: small faults put into the modules that decide whether a result is true, one at a time.

Cosmic Ray makes the faults and keeps the sessions; they are run here, in forks of a process that has every library
loaded, so that a fault costs the tests that judge it and no start of Python. Files are never changed.

    judges.toml      the modules, each with the tests that judge it
    survivors.toml   the faults that no test can or need find, each with the reason
"""
