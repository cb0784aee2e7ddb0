"""A project with products, as a user writes one: nodes, and lines that use them."""
