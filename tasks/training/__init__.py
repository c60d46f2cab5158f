"""The one training loop, and the child process that it runs in; every family trains by an `Objective` of its own.

Files:

    launch.py, torchrun.py     from a stage to the child processes
    worker.py, publish.py      from a job to a released model, in the child
    loop.py, history.py        the steps, evaluations and checkpoints, and their record
    objective.py, release.py   what a family says, and the model that comes out
    loader.py, transfer.py     batches, in an order that is a function of seed and step, and their way to the device
    optimiser.py, share.py     AdamW and Muon with their learning rates; this process among the ranks
    events.py, tracking.py     what the launcher and W&B are told
    sweep.py                   trials of a sweep
"""
