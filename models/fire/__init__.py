"""Fire models: a batch of frames in, logits for the next frame out."""
