"""Files of JSON, and the database with its tables and migrations.

Nothing here knows what the data means: :mod:`app.storage.json_file` writes any object, and
:mod:`app.storage.tables` only names the columns that the services fill.
"""
