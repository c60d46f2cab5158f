"""A vision-language model on a small CPU, without torch: llama.cpp for the decoder, ONNX Runtime for the rest.

captions, questions, conversations -> `engine.py`; the decoder -> `language.py`; vision and adapter -> `vision.py`;
images to pixels -> `picture.py`; the episodic memory -> `memory.py`; a released model's folder for the engine ->
`folder.py`, which alone stays behind when that folder is copied to a board, with `run.py` and `requirements.txt`.
"""
