"""The one training loop: objectives, schedules, checkpoints, ranks, and the child process that it runs in."""
