"""A rotating sample of the long tests: `--sample SEED` takes a third of tests/acceptance, chosen by the seed."""

import hashlib

import pytest

SHARE = 3


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--sample",
        metavar="SEED",
        help="run a third of the acceptance tests, chosen by SEED (any text); without it, all of them",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say that it is a sample and how to have the same one again."""
    seed = config.getoption("--sample")
    return None if seed is None else f"acceptance tests: a third of them, by --sample {seed}; all: make nightly"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the seed did not choose; the cases of one test stay together."""
    seed = config.getoption("--sample")
    if seed is None:
        return
    names = sorted({_name(item) for item in items if _is_long(item)}, key=lambda name: _draw(seed, name))
    chosen = set(names[: -(-len(names) // SHARE)])
    left_out = [item for item in items if _is_long(item) and _name(item) not in chosen]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _is_long(item: pytest.Item) -> bool:
    return item.get_closest_marker("acceptance") is not None


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def _draw(seed: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed} {name}".encode()).digest()
