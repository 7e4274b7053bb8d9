"""Downloads of models: each is a row in the database, run by a worker, watched by any number of clients."""
