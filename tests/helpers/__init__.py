"""What the tests share. Test modules import from here, and never from one another."""
