"""The tests, in the folders of what they test, and the toys that they share."""
