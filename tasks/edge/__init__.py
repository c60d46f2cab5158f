"""A vision-language model on a small CPU, without torch: llama.cpp for the decoder, ONNX Runtime for the rest.

captions, questions, conversations -> `engine.py`; the decoder -> `language.py`, and its embeddings -> `rows.py`; the
rest -> `onnx.py`; images to pixels -> `picture.py`; the episodic memory -> `memory.py`. `tasks/quantise/edge_folder.py`
copies these files beside those of a model, with `run.py`, `requirements.txt` and `README.md`, so they import nothing
else of this project.
"""
