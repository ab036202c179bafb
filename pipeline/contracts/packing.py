"""Messages that carry many items: bounded in number and bytes, keys bounded as the database's columns are."""

from collections.abc import Iterable
from typing import Annotated

import msgspec

# A key no column can hold is refused when it is read, so that it cannot fail a statement that is for many items.
Key = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
VersionKey = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]

ITEMS_MAX = 500
BYTES_MAX = 512 * 1024


def pack_items(generation: int, member: str, items: Iterable[bytes]) -> list[bytes]:
    """
    Join encoded items, in order, into messages `{"generation":g,"<member>":[...]}`.

    A message has at most 500 items and 512 KiB; an item that is larger by itself goes alone, and the broker has the
    last word on it. No items give no messages.
    """
    head = b'{"generation":%d,"%b":[' % (generation, member.encode())
    messages: list[bytes] = []
    pending: list[bytes] = []
    size_bytes = 0
    for item in items:
        if pending and (len(pending) >= ITEMS_MAX or size_bytes + len(item) + 1 > BYTES_MAX):
            messages.append(head + b",".join(pending) + b"]}")
            pending = []
        if not pending:
            size_bytes = len(head) + 2
        pending.append(item)
        size_bytes += len(item) + 1
    if pending:
        messages.append(head + b",".join(pending) + b"]}")
    return messages
