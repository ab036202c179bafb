"""The digests an invoice's cut is sealed with, stated a second time."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pipeline.proof.facts import ArchiveFile, Catalogue
from pipeline.runtime.postgres import FAR_FUTURE


def canonical(value: object) -> str:
    """JSON in the one spelling that is digested: sorted keys, no spaces, letters as they are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def document_digest(document: Mapping[str, Any]) -> str:
    """Sha256, hex, of an invoice's document."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def catalogue_digest(known: Catalogue) -> str:
    """Digest of meters, prices, bindings and subscriptions, as known at a horizon."""
    prices = {price.price_version_id: price for price in known.prices}
    lines: list[list[object]] = [
        ["meter", m.meter, m.version, m.event_type, m.aggregation, m.value_field, m.unit, m.slot_seconds,
         m.gap_seconds_max, _stamp(m.effective_from)]
        for m in sorted(known.meters, key=lambda m: (m.meter, m.version))
    ]  # fmt: skip
    lines += [
        ["price", p.price, p.version, p.model, p.product, p.currency, p.unit, p.base_units, canonical(p.parameters)]
        for p in sorted(known.prices, key=lambda p: (p.price, p.version))
    ]
    for b in sorted(known.bindings, key=lambda b: (b.subscription_id, b.item, b.effective_from, b.known_number)):
        price = prices.get(b.price_version_id)
        named = (price.price, price.version) if price else (None, None)
        lines.append(["binding", b.subscription_id, b.item, b.meter, *named, _stamp(b.effective_from), b.known_number])
    lines += [
        ["subscription", s.subscription_id, s.account_id, _stamp(s.starts_at), _stamp(s.ends_at) if s.ends_at else None]
        for s in sorted(known.subscriptions, key=lambda s: s.subscription_id)
    ]
    return _digest(lines)


def assignment_digest(known: Catalogue) -> str:
    """Digest of the assignments known at a horizon."""
    return _digest(
        [a.known_number, a.subject, a.subscription_id, _stamp(a.valid_from), _stamp(a.valid_to)]
        for a in sorted(known.assignments, key=lambda a: a.known_number)
    )


def manifest_digest(manifest: Iterable[ArchiveFile], offsets: Mapping[int, int]) -> str:
    """Digest of the files that begin below the offsets; of logs before the cut's, those of all that was read."""
    return _digest(
        [f.partition, f.offset_first, f.offset_next, f.row_count, f.digest]
        for f in sorted(manifest, key=lambda f: (f.partition, f.offset_first))
        if f.offset_first < offsets.get(f.partition, 0)
    )


def _stamp(at: datetime) -> str:
    return "infinity" if at == FAR_FUTURE else at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _digest(lines: Iterable[Iterable[object]]) -> str:
    texts = (
        json.dumps([None if v is None else str(v) for v in line], separators=(",", ":"), ensure_ascii=False)
        for line in lines
    )
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
