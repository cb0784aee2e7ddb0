"""The pure core: plans, events and the function that decides. No I/O, clock or chance in here."""
