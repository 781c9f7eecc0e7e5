"""The pooling layer in the shapes that users of other libraries know; each module imports its own library."""
