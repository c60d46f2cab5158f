"""Architectures: torch.nn only. No files, no configuration files, no orchestration."""

IN_KEY = False
