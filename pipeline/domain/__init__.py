"""Values every part agrees on: money, rounding, periods, slots, identity, keys, errors. Standard library only."""
