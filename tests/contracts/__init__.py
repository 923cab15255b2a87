"""What others wrote for the reference implementation, and what must work with this one when only the image's name has changed."""
