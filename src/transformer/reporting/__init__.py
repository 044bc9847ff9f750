"""The metrics of a run, and the plots made from them."""
