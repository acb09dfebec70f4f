"""The spine shared by every family; private, and imports no family."""
