"""Cells on several machines: workers that hold models, a driver that alone keeps what they find, and Ray between them."""
