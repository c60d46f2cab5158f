"""Image-text data: lists, fetching, shards, index, report.

Stages:

    image_text_rows    rows.py
    image_text_shards  shards.py
    image_text_index   index.py
    image_text_report  report.py
"""
