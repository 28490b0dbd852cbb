"""What optly_celery leans on in other libraries that they do not promise, a row for each name.

A test here that fails says what is gone, what it was for, and what to do. `test_complete` finds
what the package uses and no row tells of.
"""
