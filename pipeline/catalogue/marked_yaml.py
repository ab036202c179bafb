"""YAML as mappings, lists and text, each with its line: a scalar stays the text it was written as.

So 0.1 is never a float, `no` is never a boolean, and a problem can name its line.
"""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pipeline.catalogue.positions import Positions
from pipeline.domain.errors import Problem, Problems

Tree = dict[str, "Tree"] | list["Tree"] | str | None

_NULL = "tag:yaml.org,2002:null"


@dataclass(slots=True)
class Report:
    """Collects every problem of a file; knows the line of each path such as plans.standard.items.cpu.changes[0]."""

    file: str
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def positions(self) -> Positions:
        """Where the fields stand."""
        return Positions(self.file, self.lines)

    def add(self, path: str, message: str) -> None:
        """Note a problem of a field; where the field is not in the file, its nearest parent gives the line."""
        self.problems.append(self.positions.problem(path, message))

    def raise_if_any(self) -> None:
        """Raise Problems with all that was noted."""
        if self.problems:
            raise Problems(self.problems)


def read_text(path: Path) -> str:
    """The file's text; raises Problems for a file that cannot be read and for bytes that are not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8: {error.reason} at byte {error.start}"
        raise Problems([Problem(str(path), line, "document", message)]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}; name a YAML file that can be"
        raise Problems([Problem(str(path), 0, "file", message)]) from None


def read_tree(text: str, file: str) -> tuple[Tree, Report]:
    """Take YAML apart. What cannot be parsed at all raises Problems; doubled keys and the like are in the report."""
    report = Report(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise Problems([Problem(file, line, "document", f"is not YAML: {error.problem}")]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Problems([Problem(file, line, "document", f"is not YAML: {error.reason}")]) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise Problems([Problem(file, 1, "document", f"is not YAML: {error}")]) from None
    if node is None:
        raise Problems([Problem(file, 1, "document", "is empty")])
    return _convert(node, "", report, set()), report


def _convert(node: yaml.Node, path: str, report: Report, seen: set[int]) -> Tree:
    report.lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        report.add(path, "is an alias; write it out")
        return None
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == _NULL else str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(member, f"{path}[{index}]", report, seen) for index, member in enumerate(node.value)]
    found: dict[str, Tree] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            report.add(path, "has a key that is not text")
            continue
        key = str(key_node.value)
        member_path = f"{path}.{key}" if path else key
        if key in found:
            report.problems.append(Problem(report.file, key_node.start_mark.line + 1, member_path, "is there twice"))
            continue
        report.lines[member_path] = key_node.start_mark.line + 1
        found[key] = _convert(value_node, member_path, report, seen)
    return found
