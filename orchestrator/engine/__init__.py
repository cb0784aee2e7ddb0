"""The pure core: plans, events and the function that decides. It has no I/O, clock or randomness."""
