"""What a subscription is made of: models that authors write, loaded and saved through the database layer."""
