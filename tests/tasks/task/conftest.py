from undrawn import drawn, undrawn  # noqa: F401
