"""The library beside its peers: kernels (``bench``) and whole models (``end_to_end``)."""
