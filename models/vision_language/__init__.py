"""The vision-language model with an episodic memory.

the memory -> `gaussian_memory.py`; whether a query is about what it holds -> `scope.py`
"""
