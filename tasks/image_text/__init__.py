"""Image-text data: lists of images and texts to verified WebDataset shards and an index.

`image_text_rows` -> `rows.py` (readers of lists in `text_lists`, `tables`, `tars`; `gathering` sorts by image)
`image_text_shards` -> `shards.py` (one shard in `shard`: `crawl` and `fetch` get images, `picture` checks; `packing`)
`image_text_index` -> `index.py` (`duplicates`, `image_splits`)
`image_text_report` -> `report.py` (`survey` counts; `figures_counts` and `figures_samples` draw)
"""
