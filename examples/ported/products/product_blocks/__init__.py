"""What subscriptions are made of."""
