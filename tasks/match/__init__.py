"""Two towers: samples and what is said of them, in one space of vectors."""
