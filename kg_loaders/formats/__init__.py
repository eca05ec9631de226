"""File formats, one file each: ``read`` a folder or file into a RecGraph, ``write`` it back."""
