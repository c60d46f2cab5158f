"""SatSwinMAE: pretraining on windows without captions, and what it can do beside simple baselines."""
