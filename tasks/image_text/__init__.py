"""Stages of image-text data: lists, fetching, shards, index, report."""
