"""What the tests share. README.md in this folder says what is where."""
