"""A language model that follows a script: for dry runs without a key, and for tests of what goes wrong with real ones.

`script` decides what is said and what fails, `wires` knows the three forms it is said in, `server` listens on loopback.
"""
