"""Questions made from captions."""

from __future__ import annotations

from configs.image_text import Questions
from storage.hashing import digest
from tasks.image_text.row import Row


def ask(row: Row, questions: Questions) -> Row:
    """Give a caption without a question one that it answers; which one depends on image and caption alone."""
    if row.question or not row.caption:
        return row
    chosen = int(digest([row.url or row.place, row.caption])[:8], 16) % len(questions.templates)
    return row._replace(question=questions.templates[chosen], answer=row.caption, templated=True)
