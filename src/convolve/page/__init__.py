"""The page that looks inside a net: what it shows, the server behind it, and the same page as one file."""
