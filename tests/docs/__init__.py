"""What the pages in docs have their readers do, done."""
