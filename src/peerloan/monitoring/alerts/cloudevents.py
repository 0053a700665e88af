"""Makes CloudEvents 1.0 with their SDK.

A separate module, because `events` must be importable without the SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

SOURCE = "/peerloan/monitor"


def cloud_event(
    event_id: str, kind: str, subject: str, time_ms: int, data: Mapping[str, Any]
) -> str:
    """Return an event as JSON; `time_ms` is in milliseconds since 1970."""
    attributes = {
        "id": event_id,
        "source": SOURCE,
        "type": kind,
        "subject": subject,
        "time": datetime.fromtimestamp(time_ms / 1000, UTC),
        "datacontenttype": "application/json",
    }
    return JSONFormat().write(CloudEvent(attributes, dict(data))).decode()
