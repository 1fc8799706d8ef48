"""Where results go: video bytes, and the ledger of what is committed, failed and seen."""
