"""`python -m bench NAME [options]`: run one benchmark."""

import sys
from collections.abc import Callable, Mapping, Sequence

from bench import pipeline

BENCHMARKS: Mapping[str, Callable[[Sequence[str]], int]] = {"pipeline": pipeline.main}


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark of this name; 2 where there is none."""
    if not arguments or arguments[0] not in BENCHMARKS:
        print(f"usage: python -m bench {'|'.join(BENCHMARKS)} [--help]", file=sys.stderr)
        return 2
    return BENCHMARKS[arguments[0]](arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
