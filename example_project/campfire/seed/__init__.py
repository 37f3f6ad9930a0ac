"""The room the example starts with.

`keys.txt` is real: the keys of one request of a chat application of 2011, in order.
What was said under those ids is made up.
"""
