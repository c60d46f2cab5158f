"""Kills: every stage of every pipeline, by both engines, ended with SIGKILL at one file operation after another.

A kill is of a small run in which all other stages are cached. The run after it must end in the same files and bytes as
one that nobody disturbed, and leave nothing else in the root.
"""
