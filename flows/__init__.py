"""What runs: one file per pipeline, and the `millrace` command line."""
