"""What model folders hold, read without torch."""
