BEGAN = "org.peerloan.alarm.began"
ROSE = "org.peerloan.alarm.rose"
ENDED = "org.peerloan.alarm.ended"
MADE = "org.peerloan.answer.made"
REFUSED = "org.peerloan.answer.refused"
PROMOTED = "org.peerloan.answer.promoted"
import json
import secrets

from sqlalchemy import insert

from peerloan.ledger.schema import events


def put(connection, type, subject, data, time_ms, channels):
    i = secrets.token_hex(8)
    connection.execute(
        insert(events).values(id=i, time_ms=time_ms, type=type, event=json.dumps(data))
    )
    return i
