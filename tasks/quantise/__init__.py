"""Models of every family made small: what training them quantised takes, and what they weigh then.

`distillation.py` has the losses that keep a quantised model near the exact one, `vocabulary.py` leaves out tokens that
a corpus does not use, `layers.py` leaves out layers, and `sizes.py` tells bytes. The layers themselves are in
`models/ternary.py` and `models/packed.py`, their files in `storage/packed_weights.py`.

Files for engines without torch: `gguf_file.py` for llama.cpp, with zeros around the weights (`padding.py`), and
`onnx_file.py` for ONNX Runtime; `unpacking.py` gives them the weights of packed models. `edge_folder.py` puts them
beside the engine of `tasks/edge/` in a folder for a board, `edge_process.py` asks that engine for logits.
"""
