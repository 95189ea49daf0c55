"""Showing environments and memories to people: windows, terminals, pictures of what is remembered, videos."""
