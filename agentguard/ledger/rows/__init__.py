"""What the ledger's queries return: one frozen class per kind of row, each column with its type."""
