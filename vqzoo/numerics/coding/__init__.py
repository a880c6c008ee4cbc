"""Lossless coding of integer codes: fixed width, Huffman, rANS."""
