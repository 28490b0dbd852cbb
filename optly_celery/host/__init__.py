"""The process that the package lives in: its forks, its threads, its server."""
