"""A trained client without its federation: it predicts, is written into a folder, and is read from one."""
