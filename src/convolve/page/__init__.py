"""The page that looks inside a net: what it shows, the server behind it, and the same page as one file."""

PORT = 8770
"""Where it is served, or on the next port that is free."""
