"""Decoders that answer questions about what an encoder saw: trained, judged, packed, and asked.

    answerer_training      training.py
    answerer_packing       packed.py
    answer_report          report.py

`samples` makes sequences of questions and answers, `objective` is what is trained towards, `scores` says how good
answers are, `evaluation` against which controls.
"""
