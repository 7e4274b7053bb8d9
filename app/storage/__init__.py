"""Store data in JSON files, and in a database with tables and migrations.

Nothing here knows what the data means: :mod:`app.storage.json_file` stores any object, and
:mod:`app.storage.tables` only declares the columns that the services fill.
"""
