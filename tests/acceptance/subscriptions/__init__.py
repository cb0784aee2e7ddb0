"""Acceptance tests of subscriptions."""
