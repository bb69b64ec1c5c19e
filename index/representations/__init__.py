"""What encoders write and indexes store."""
