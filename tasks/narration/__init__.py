"""From windows to words: the join with captions, text models, adapters, and how they are judged."""
