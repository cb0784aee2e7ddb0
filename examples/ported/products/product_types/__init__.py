"""What customers can have."""
