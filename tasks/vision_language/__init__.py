"""Vision-language models: their samples, trainings, evaluation and pictures."""
