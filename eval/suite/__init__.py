"""Several systems on several test collections."""
