"""What every room may use: errors, seeds, checkpoint folders, the allocator."""
