"""Draw forms from their JSON schemas, and read what a browser sends of them. Pure."""
