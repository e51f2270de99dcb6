"""What must outlive this process: conversations, the ledger of turns, and who is at work on them."""
