"""The commands of `python -m tasks`, each in its own file under its own name, and the tables they write."""
