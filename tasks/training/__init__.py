"""The one training loop: objectives, schedules, checkpoints, ranks, and the child process that it runs in.

A training stage calls `launch`, which starts `worker` (under `torchrun` for several ranks); that runs `loop` with an
`objective`, batches of `loader`, steps of `optimiser`, and leaves what `publish` writes. `sweep` searches settings.
"""
