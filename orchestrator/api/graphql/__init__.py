"""GraphQL as the field's user interface asks it: queries alone, over what the lists and documents of REST read."""
