"""Weather models: the vision model that is pretrained, and what joins it to a language model."""
