"""What is kept on this machine or in the database: files of JSON, the tables, and their migrations.

Nothing here knows what is kept: :mod:`app.storage.json_file` writes any object, and
:mod:`app.storage.tables` only names the columns that the services fill.
"""
