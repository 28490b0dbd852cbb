"""How the line is now: what is asked, and what follows from the answers."""
