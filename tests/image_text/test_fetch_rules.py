"""What headers mean: opt-outs, pauses, and which failures are worth another attempt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from configs.image_text import Fetching
from storage.shard_set import STATUSES
from tasks.image_text.crawl import pause_before_retry
from tasks.image_text.fetch import TRANSIENT, FetchError, opted_out, retry_after


@pytest.mark.parametrize(
    "headers",
    [["noai"], ["NoImageAI"], ["nofollow, noindex"], ["none"], ["all", "noimageindex"], ["millrace: noai"],
     ["otherbot: all, millrace: noai"], ["otherbot: nofollow", "noai"]],
)  # fmt: skip
def test_opt_outs_are_honoured(headers):
    assert opted_out(headers)


@pytest.mark.parametrize(
    "headers",
    [[], ["all"], ["nofollow"], ["otherbot: noai"], ["otherbot: nofollow, noai"], ["max-snippet: 5"],
     ["unavailable_after: 25 Jun 2030 15:00:00 PST"]],
)  # fmt: skip
def test_what_is_meant_for_others_or_says_something_else_is_no_opt_out(headers):
    assert not opted_out(headers)


def test_retry_after_is_a_number_or_a_date():
    assert retry_after("7") == 7
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60))
    assert 50 < (retry_after(soon) or 0) <= 60
    assert retry_after(format_datetime(datetime.now(UTC) - timedelta(days=1))) == 0
    assert retry_after("soon") is None


def test_pauses_grow_and_end():
    rules = Fetching(retries=3, backoff_seconds=1, longest_pause_seconds=30)
    assert [pause_before_retry(FetchError("timeout"), n, rules) for n in range(4)] == [1, 2, 4, None]
    assert pause_before_retry(FetchError("http_429", pause=20), 0, rules) == 20
    assert pause_before_retry(FetchError("http_429", pause=1), 2, rules) == 4
    assert pause_before_retry(FetchError("http_429", pause=3600), 0, rules) is None, "left for a later run"


def test_only_failures_that_may_pass_are_tried_again():
    assert set(STATUSES) >= TRANSIENT
    final = set(STATUSES) - TRANSIENT
    assert {"http_404", "http_403", "private_address", "not_image", "robots_optout", "too_big"} <= final
    assert all(pause_before_retry(FetchError(status), 0, Fetching()) is None for status in final)
