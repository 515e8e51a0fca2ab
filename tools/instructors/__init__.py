"""What ``make instructors`` builds from committed notebooks; it is not committed itself."""
