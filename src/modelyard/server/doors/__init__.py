"""Front doors that speak the dialects of others: the object store, the files of the console."""
