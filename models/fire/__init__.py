"""Fire models: a batch of frames in, logits for the next frame out.

EmberFormer -> `emberformer.py` (`token_transformer`, then one of the `*_decoder` modules)
ConvHead2D, Tiny3D, UNetS, UNetSTokens, CopyLast -> a file each

`batch` is what all are fed with, `losses` what they are trained by.
"""
