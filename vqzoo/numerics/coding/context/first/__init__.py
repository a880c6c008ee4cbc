"""Reading streams of the first version of the packing `context`."""
