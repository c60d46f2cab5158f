"""Benchmarks: every speed or size that Millrace claims, measured against its peers. `make bench` renews them all."""
