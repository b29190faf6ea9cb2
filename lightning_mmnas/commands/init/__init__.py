"""`mmnas init`: configurations for a table of one's own."""
