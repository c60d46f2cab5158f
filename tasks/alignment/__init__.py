"""Image encoders that are aligned with texts, and the questions about images that they see for decoders.

    alignment_training     training.py
    alignment_report       report.py
    image_questions        questions.py

`samples` pairs images with texts, `objective` is what is trained towards, `released` the model that comes of it.
"""
