"""What is measured, each subject in a process of its own; started by `benchmarks.process`."""
