"""What entropy coders share: tables of symbols, chunks of a stream."""
