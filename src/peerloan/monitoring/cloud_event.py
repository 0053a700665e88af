"""An event in the form of CloudEvents 1.0. It stands apart: a service does without its library."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

SOURCE = "/peerloan/monitor"


def cloud_event(event_id: str, kind: str, subject: str, data: dict[str, Any], time_ms: int) -> str:
    """The event as JSON in structured mode; the subject is a model version, the time milliseconds
    since 1970. Raises ValueError if the data hold a number that JSON has not.
    """
    json.dumps(data, allow_nan=False)  # the library would write NaN, which no receiver can read
    attributes = {
        "id": event_id,
        "source": SOURCE,
        "type": kind,
        "subject": subject,
        "time": datetime.fromtimestamp(time_ms / 1000, UTC),
        "datacontenttype": "application/json",
    }
    return JSONFormat().write(CloudEvent(attributes, data)).decode()
