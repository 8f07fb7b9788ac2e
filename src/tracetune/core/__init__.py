"""The values that cross borders between rooms, and the error tree. Standard library and NumPy only."""
