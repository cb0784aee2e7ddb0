"""What operators do at every entry point that needs the broker as well as the database: explain, dead letters, bulk commands."""
