"""What every language model needs: tokenizers (`tokens.py`), and scores of texts (`metrics.py`, `cider.py`)."""
