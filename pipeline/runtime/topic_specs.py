"""Topics as the checked-in file wants them, read with every problem named at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from pipeline.domain.errors import Problem, Problems
from pipeline.runtime.settings import schemas_dir

TimestampType = Literal["CreateTime", "LogAppendTime"]
CleanupPolicy = Literal["delete", "compact"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is to be made; fields as in schemas/topics.yaml."""

    name: str
    meaning: str
    partitions: int
    key: str
    timestamp_type: TimestampType
    cleanup_policy: CleanupPolicy
    #: Milliseconds; -1 for ever.
    retention_ms: int
    #: Bytes a partition; -1 for no limit.
    retention_bytes: int
    compression: Compression
    message_bytes_max: int
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]

    def broker_config(self) -> dict[str, str]:
        """Give the topic's settings under the broker's names."""
        return {
            "message.timestamp.type": self.timestamp_type,
            "cleanup.policy": self.cleanup_policy,
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(self.retention_bytes),
            "compression.type": "uncompressed" if self.compression == "none" else self.compression,
            "max.message.bytes": str(self.message_bytes_max),
        }


_WHOLE = ("partitions", "retention_ms", "retention_bytes", "message_bytes_max")
_CHOICES: dict[str, tuple[str, ...]] = {
    "timestamp_type": get_args(TimestampType),
    "cleanup_policy": get_args(CleanupPolicy),
    "compression": get_args(Compression),
}
_LISTS = ("written_by", "read_by")


def load_topics(path: Path | None = None) -> list[TopicSpec]:
    """
    Read the topics file.

    Args:
        path: Defaults to the shipped schemas/topics.yaml.

    Raises:
        Problems: Every field that is missing, unknown or malformed, with its line.
    """
    path = path or schemas_dir() / "topics.yaml"
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise Problems([Problem(str(path), 0, "topics", str(error))]) from error
    problems: list[Problem] = []
    specs: list[TopicSpec] = []
    for node in _topic_nodes(path, root, problems):
        line = node.start_mark.line + 1
        entry = cast(Any, yaml.SafeLoader("")).construct_document(node)
        found = [Problem(str(path), line, field, message) for field, message in _problems_of(entry)]
        problems.extend(found)
        if not found:
            values = {name: tuple(value) if name in _LISTS else value for name, value in entry.items()}
            specs.append(TopicSpec(**cast(Any, values)))
    names = [spec.name for spec in specs]
    problems.extend(
        Problem(str(path), 0, name, "is there twice") for name in sorted({n for n in names if names.count(n) > 1})
    )
    if problems:
        raise Problems(problems)
    return specs


def _topic_nodes(path: Path, root: yaml.Node | None, problems: list[Problem]) -> list[yaml.Node]:
    if isinstance(root, yaml.MappingNode):
        for key, value in root.value:
            if key.value == "topics" and isinstance(value, yaml.SequenceNode):
                return cast(list[yaml.Node], value.value)
    problems.append(Problem(str(path), 1, "topics", "a mapping with a list `topics` is wanted"))
    return []


def _problems_of(entry: object) -> Iterable[tuple[str, str]]:
    wanted = tuple(TopicSpec.__dataclass_fields__)
    if not isinstance(entry, dict):
        yield "topics", "each topic is a mapping"
        return
    for name in wanted:
        value = entry.get(name)
        if value is None:
            yield name, "is missing"
        elif name in _WHOLE:
            if type(value) is not int or value < (1 if name in ("partitions", "message_bytes_max") else -1):
                yield name, f"a whole number is wanted, not {value!r}"
        elif name in _CHOICES:
            if value not in _CHOICES[name]:
                yield name, f"one of {', '.join(_CHOICES[name])} is wanted, not {value!r}"
        elif name in _LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                yield name, "a list of words is wanted"
        elif not isinstance(value, str):
            yield name, f"a text is wanted, not {value!r}"
    for name in entry:
        if name not in wanted:
            yield str(name), "is not a field of a topic"
